INSERT INTO resources (name, capacity)
SELECT name, capacity FROM json_to_recordset($1) AS n (name text, capacity int)
ORDER BY name
ON CONFLICT (name) DO UPDATE SET capacity = excluded.capacity
