SELECT name, capacity FROM resources WHERE name = ANY ($1) ORDER BY name FOR UPDATE
