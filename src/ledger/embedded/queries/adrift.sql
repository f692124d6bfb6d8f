-- Why the sweeper should look at a run, now (?1), at most ?2 for each reason; see ledger::Adrift,
-- and the PostgreSQL query of this name.
SELECT id, why FROM (
    SELECT id, 'overdue' AS why FROM runs
    WHERE ended_at IS NULL AND state IN ('queued', 'running') AND deadline <= ?1
    LIMIT ?2)
UNION ALL
SELECT id, why FROM (
    SELECT r.id, 'silent' AS why FROM runs r
    LEFT JOIN outbox o ON o.run = r.id AND o.kind = 'wake'
    WHERE r.ended_at IS NULL AND r.state <> 'queued' AND r.heartbeat < ?1
      AND (o.run IS NULL OR o.sent_at < r.heartbeat - 60000000)
    LIMIT ?2)
UNION ALL
SELECT id, why FROM (
    SELECT r.id, 'silent' AS why FROM runs r
    LEFT JOIN outbox o ON o.run = r.id AND o.kind = 'wake'
    WHERE r.ended_at IS NULL AND r.changed_at < ?1 - 3600000000
      AND (r.heartbeat IS NULL OR r.heartbeat < ?1)
      AND NOT EXISTS (SELECT 1 FROM waiters w WHERE w.run = r.id)
      AND (o.run IS NULL OR o.sent_at < ?1 - max(3600000000, o.sent_at - r.changed_at))
      AND NOT (r.heartbeat IS NOT NULL
               AND (o.run IS NULL OR o.sent_at < r.heartbeat - 60000000))
    LIMIT ?2)
UNION ALL
SELECT run, why FROM (
    SELECT w.run, 'free' AS why FROM (
        SELECT resource, run, since,
               row_number() OVER (PARTITION BY resource ORDER BY since, run) AS place
        FROM waiters
    ) w
    LEFT JOIN resources s ON s.name = w.resource
    WHERE w.since < ?1 - 10000000
      AND CASE WHEN w.resource LIKE 'pause/%' THEN NOT EXISTS (
              SELECT 1 FROM pauses p
              WHERE 'pause/' || p.scope || iif(p.name = '', '', '/' || p.name) = w.resource
                AND (p.until IS NULL OR p.until > ?1))
          WHEN w.resource LIKE 'after/%' THEN EXISTS (
              SELECT 1 FROM runs r
              WHERE r.id = w.run AND coalesce(
                  (SELECT min(p.ended_at IS NOT NULL) FROM runs p
                   WHERE p.export = substr(w.resource, 7, instr(substr(w.resource, 7), '/') - 1)
                     AND p.window_start = r.window_start AND p.window_end = r.window_end
                     AND p.supplements IS NULL),
                  EXISTS (SELECT 1 FROM skipped s
                   WHERE s.export = substr(w.resource, 7, instr(substr(w.resource, 7), '/') - 1)
                     AND s.window_start = r.window_start AND s.window_end = r.window_end)))
          ELSE w.place <= coalesce(s.capacity, 1)
                          - (SELECT count(*) FROM holdings h WHERE h.resource = w.resource)
               OR EXISTS (SELECT 1 FROM holdings h WHERE h.resource = w.resource AND h.run = w.run)
          END
    ORDER BY w.since, w.run
    LIMIT ?2)
UNION ALL
SELECT id, why FROM (
    SELECT id, 'stuck' AS why FROM runs
    WHERE ended_at IS NULL AND state IN ('committing', 'closing') AND changed_at < ?1 - 3600000000
    LIMIT ?2)
