-- The first ?2 waiters of a resource (?1); all, where that is -1.
SELECT resource, run, since, pool, epoch FROM waiters
WHERE resource = ?1
ORDER BY since, run
LIMIT ?2
