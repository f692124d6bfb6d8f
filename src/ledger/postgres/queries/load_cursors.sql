SELECT name, value FROM cursors WHERE name = ANY ($1) FOR UPDATE
