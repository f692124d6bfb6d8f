-- The first ?2 waiters of each resource (?1), and those that the batch itself names (?3). Of a
-- predecessor all are woken at once.
SELECT resource, run, since, pool, epoch FROM (
    SELECT *, row_number() OVER (PARTITION BY resource ORDER BY since, run) AS place
    FROM waiters WHERE resource IN (SELECT value FROM json_each(?1))
)
WHERE place <= ?2 OR resource LIKE 'after/%' OR run IN (SELECT value FROM json_each(?3))
