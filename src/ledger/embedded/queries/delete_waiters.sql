DELETE FROM waiters WHERE run IN (SELECT value ->> 'run' FROM json_each(?1))
