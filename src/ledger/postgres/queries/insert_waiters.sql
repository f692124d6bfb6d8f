INSERT INTO waiters (run, resource, since, pool, epoch)
SELECT run, resource, since, pool, epoch
FROM json_to_recordset($1) AS n (run uuid, resource text, since timestamptz, pool text, epoch int)
ON CONFLICT (run) DO UPDATE
SET resource = excluded.resource, since = excluded.since, pool = excluded.pool,
    epoch = excluded.epoch
