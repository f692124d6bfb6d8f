SELECT name, value FROM cursors WHERE name = ANY ($1) ORDER BY name FOR UPDATE
