DELETE FROM outbox
WHERE kind = 'wake' AND run IN (SELECT value ->> 'run' FROM json_each(?1))
