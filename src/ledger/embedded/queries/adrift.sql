-- Why the sweeper should look at a run, now (?1), at most ?2 for each reason; see ledger::Adrift.
SELECT id, why FROM (
    SELECT id, 'overdue' AS why FROM runs
    WHERE ended_at IS NULL AND state IN ('queued', 'running') AND deadline <= ?1
    LIMIT ?2)
UNION ALL
SELECT id, why FROM (
    SELECT r.id, 'silent' AS why FROM runs r
    LEFT JOIN outbox o ON o.run = r.id AND o.kind = 'wake'
    WHERE r.ended_at IS NULL
      AND NOT EXISTS (SELECT 1 FROM waiters w WHERE w.run = r.id)
      AND (o.run IS NULL OR o.sent_at IS NOT NULL)
      AND CASE
          WHEN r.heartbeat IS NOT NULL
          THEN r.heartbeat < ?1
               AND coalesce(o.sent_at, 0) < max(r.heartbeat, ?1 - 60000000)
          ELSE max(r.changed_at, coalesce(o.sent_at, 0)) < ?1 - 3600000000
          END
    LIMIT ?2)
UNION ALL
SELECT run, why FROM (
    SELECT w.run, 'free' AS why FROM waiters w
    LEFT JOIN resources s ON s.name = w.resource
    WHERE w.since < ?1 - 10000000
      AND ((SELECT count(*) FROM holdings h WHERE h.resource = w.resource) < coalesce(s.capacity, 1)
           OR EXISTS (SELECT 1 FROM holdings h WHERE h.resource = w.resource AND h.run = w.run))
    ORDER BY w.since, w.run
    LIMIT ?2)
UNION ALL
SELECT id, why FROM (
    SELECT id, 'stuck' AS why FROM runs
    WHERE ended_at IS NULL AND state IN ('committing', 'closing') AND changed_at < ?1 - 3600000000
    LIMIT ?2)
