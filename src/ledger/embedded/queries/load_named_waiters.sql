-- Those of these runs (?2) that wait for one of these resources (?1).
SELECT resource, run, since, pool, epoch FROM waiters
WHERE run IN (SELECT value FROM json_each(?2))
  AND +resource IN (SELECT value FROM json_each(?1))
