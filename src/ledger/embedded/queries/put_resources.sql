INSERT INTO resources (name, capacity)
SELECT value ->> 'name', value ->> 'capacity' FROM json_each(?1) WHERE true
ON CONFLICT (name) DO UPDATE SET capacity = excluded.capacity
