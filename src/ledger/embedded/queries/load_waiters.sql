-- The first ?2 waiters of each resource (?1), and those that the batch itself names (?3).
SELECT resource, run, since, pool, epoch FROM (
    SELECT *, row_number() OVER (PARTITION BY resource ORDER BY since, run) AS place
    FROM waiters WHERE resource IN (SELECT value FROM json_each(?1))
)
WHERE place <= ?2 OR run IN (SELECT value FROM json_each(?3))
