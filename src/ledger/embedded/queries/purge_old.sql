-- The runs that ended before ?1, at most ?2, that go with all that is theirs; see the PostgreSQL query
-- `purge`, also for those that were spread.
SELECT id FROM runs
WHERE ended_at < ?1
  AND (parent IS NULL OR NOT EXISTS (SELECT 1 FROM runs w WHERE w.id = runs.parent))
  AND NOT EXISTS (SELECT 1 FROM runs p
                  WHERE p.parent = runs.id AND (p.ended_at IS NULL OR p.ended_at >= ?1))
ORDER BY ended_at LIMIT ?2
