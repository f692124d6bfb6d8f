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
    WHERE r.state IN ('running', 'committing', 'closing') AND r.state <> 'done'
      AND r.heartbeat < ?1
      AND (o.run IS NULL OR o.sent_at < r.heartbeat
           OR o.sent_at IS NULL AND o.export IS NOT NULL)
    LIMIT ?2)
UNION ALL
SELECT id, why FROM (
    SELECT r.id, 'silent' AS why FROM runs r
    LEFT JOIN outbox o ON o.run = r.id AND o.kind = 'wake'
    WHERE r.ended_at IS NULL AND r.changed_at < ?1 - 3600000000
      AND (r.heartbeat IS NULL OR r.heartbeat < ?1)
      AND NOT EXISTS (SELECT 1 FROM waiters w WHERE w.run = r.id)
      AND (o.run IS NULL
           OR o.sent_at < ?1 - max(3600000000, o.sent_at - max(
               coalesce(o.first_sent_at, o.sent_at), r.changed_at)))
      AND NOT (r.heartbeat IS NOT NULL
               AND (o.run IS NULL OR o.sent_at < r.heartbeat))
    LIMIT ?2)
UNION ALL
SELECT run, 'free' AS why FROM (
    WITH RECURSIVE names (name) AS (
        SELECT min(resource) FROM waiters
        UNION ALL
        SELECT (SELECT min(w.resource) FROM waiters w WHERE w.resource > n.name)
        FROM names n WHERE n.name IS NOT NULL
    ), windows AS (
        -- All that wait for a predecessor have the same window.
        SELECT n.name, r.window_start, r.window_end,
               substr(n.name, 7, instr(substr(n.name, 7), '/') - 1) AS export
        FROM names n JOIN runs r ON r.id = (
            SELECT w.run FROM waiters w JOIN runs o ON o.id = w.run WHERE w.resource = n.name
            ORDER BY w.since, w.run LIMIT 1)
        WHERE n.name LIKE 'after/%'
    ), lists AS MATERIALIZED (
        SELECT n.name, CASE
            WHEN n.name LIKE 'pause/%' THEN iif(EXISTS (
                SELECT 1 FROM pauses p
                WHERE 'pause/' || p.scope || iif(p.name = '', '', '/' || p.name) = n.name
                  AND (p.until IS NULL OR p.until > ?1)), 0, ?2)
            WHEN n.name LIKE 'after/%' THEN iif(coalesce(
                (SELECT min(p.ended_at IS NOT NULL) FROM runs p
                 WHERE p.export = r.export
                   AND p.window_start = r.window_start AND p.window_end = r.window_end
                   AND p.supplements IS NULL),
                EXISTS (SELECT 1 FROM skipped s
                        WHERE s.export = r.export
                          AND s.window_start = r.window_start AND s.window_end = r.window_end)),
                ?2, 0)
            ELSE coalesce(s.capacity, 1)
                 - (SELECT count(*) FROM holdings h WHERE h.resource = n.name)
            END AS places
        FROM names n
        LEFT JOIN resources s ON s.name = n.name
        LEFT JOIN windows r ON r.name = n.name
        WHERE n.name IS NOT NULL
    )
    SELECT run, since FROM (
        SELECT w.run, w.since, l.places,
               row_number() OVER (PARTITION BY w.resource ORDER BY w.since, w.run) AS place
        FROM lists l JOIN waiters w ON w.resource = l.name WHERE l.places > 0)
    WHERE place <= places AND since < ?1 - 10000000
    UNION
    SELECT w.run, w.since
    FROM lists l JOIN holdings h ON h.resource = l.name
    JOIN waiters w ON w.run = h.run AND w.resource = l.name
    WHERE w.since < ?1 - 10000000
    ORDER BY since, run
    LIMIT ?2)
UNION ALL
SELECT id, why FROM (
    SELECT id, 'stuck' AS why FROM runs
    WHERE state IN ('committing', 'closing') AND state <> 'done' AND changed_at < ?1 - 3600000000
    LIMIT ?2)
