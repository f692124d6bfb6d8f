INSERT INTO waiters (run, resource, since, pool, epoch, export)
SELECT run, resource, since, pool, epoch, (SELECT r.export FROM runs r WHERE r.id = n.run)
FROM json_to_recordset($1) AS n (run uuid, resource text, since timestamptz, pool text, epoch int)
ON CONFLICT (run) DO UPDATE
SET resource = excluded.resource, since = excluded.since, pool = excluded.pool,
    epoch = excluded.epoch
