-- The first waiters of each resource: as many as a batch of $2 commands can wake, and those that
-- the batch itself names ($3). Of a predecessor all are woken at once.
SELECT w.resource, w.run, w.since, w.pool, w.epoch
FROM unnest($1::text[]) AS r (name)
CROSS JOIN LATERAL (
    (SELECT * FROM waiters WHERE resource = r.name ORDER BY since, run LIMIT $2)
    UNION
    (SELECT * FROM waiters
     WHERE resource = r.name AND (run = ANY ($3) OR r.name LIKE 'after/%'))
) w
