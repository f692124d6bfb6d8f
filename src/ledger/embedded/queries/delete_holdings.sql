DELETE FROM holdings
WHERE (resource, run) IN (SELECT value ->> 'resource', value ->> 'run' FROM json_each(?1))
