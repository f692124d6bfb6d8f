-- The first waiters of each resource ($1): as many as a batch of $2 commands can wake, and of a
-- predecessor all, which are woken at once. And those that the batch itself names ($3).
SELECT w.resource, w.run, w.since, w.pool, w.epoch
FROM unnest($1::text[]) AS r (name)
CROSS JOIN LATERAL (
    SELECT * FROM waiters WHERE resource = r.name ORDER BY since, run
    LIMIT CASE WHEN r.name LIKE 'after/%' THEN NULL ELSE $2::bigint END
) w
UNION
SELECT w.resource, w.run, w.since, w.pool, w.epoch
FROM unnest($3::uuid[]) AS n (run)
-- Looked up by the run, however few others a list is thought to have.
CROSS JOIN LATERAL (SELECT * FROM waiters WHERE run = n.run OFFSET 0) w
WHERE w.resource = ANY ($1)
