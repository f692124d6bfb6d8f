DELETE FROM outbox
WHERE (run, kind) IN (SELECT value ->> 'run', value ->> 'kind' FROM json_each(?1))
