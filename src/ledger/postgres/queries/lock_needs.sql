-- Makes and locks resources that an open needs. $1: names, sorted; $2: capacities. What stands as
-- it should is locked, not written.
INSERT INTO resources (name, capacity)
SELECT * FROM unnest($1::text[], $2::int[])
ON CONFLICT (name) DO UPDATE SET capacity = excluded.capacity
WHERE resources.capacity <> excluded.capacity
