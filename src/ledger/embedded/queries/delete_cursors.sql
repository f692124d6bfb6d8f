DELETE FROM cursors WHERE name IN (SELECT value FROM json_each(?1))
