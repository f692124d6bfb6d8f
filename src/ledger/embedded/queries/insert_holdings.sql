INSERT INTO holdings (resource, run)
SELECT value ->> 'resource', value ->> 'run' FROM json_each(?1) WHERE true
ON CONFLICT DO NOTHING
