-- Takes what is due, for a while; two dispatchers never wait for one another. What takes turns is
-- in line by pool and export, and the first of each line may go: so many ($3) for each unit of the
-- export's weight, less those that are ahead: of which the wake-up is sent and the run is queued
-- still, and those that wait for a slot of a connection. Another dispatcher's are among the first
-- until he has marked them; what was put off lets the next go.
-- What was sent ten minutes ago may be lost, with its queue: a second time as many may go, but no more,
-- since it may as well wait behind what takes long.
-- An index can be asked for what is before now(), which stands still, not for clock_timestamp().
WITH RECURSIVE lines (pool, export) AS (
    (SELECT pool, export FROM outbox
     WHERE sent_at IS NULL AND export IS NOT NULL ORDER BY pool, export LIMIT 1)
    UNION ALL
    -- The next of the index, however many are in this line.
    SELECT n.pool, n.export FROM lines l CROSS JOIN LATERAL (
        SELECT o.pool, o.export FROM outbox o
        WHERE o.sent_at IS NULL AND o.export IS NOT NULL
          AND (o.pool, o.export) > (l.pool, l.export)
        ORDER BY o.pool, o.export LIMIT 1
    ) n
), weighed AS (
    SELECT l.pool, l.export,
           coalesce((SELECT weight FROM active_definitions d WHERE d.export = l.export), 1)::bigint
               AS weight
    FROM lines l
), due AS (
    (SELECT version, due_at AS since, row_number() OVER (ORDER BY due_at) AS turn
     FROM (SELECT version, due_at FROM outbox
           WHERE sent_at IS NULL AND export IS NULL AND kind NOT LIKE 'notice-%'
             AND due_at <= now() AND (taken_until IS NULL OR taken_until < now())
           ORDER BY due_at LIMIT $1) free)
    UNION ALL
    SELECT first.version, first.since,
           1 + (row_number() OVER (PARTITION BY w.pool, w.export ORDER BY first.since) - 1) / w.weight
    FROM weighed w CROSS JOIN LATERAL (
        SELECT version, since
        -- What the server can count beforehand: else it thinks of all in line, and plans for them.
        FROM (SELECT o.version, o.since, o.due_at FROM outbox o
              WHERE o.sent_at IS NULL AND o.export IS NOT NULL
                AND o.pool = w.pool AND o.export = w.export AND o.since <= now()
              ORDER BY o.since LIMIT 500) o
        WHERE o.due_at <= now()
        LIMIT greatest(0, $3 * w.weight - (
            SELECT greatest(count(*) FILTER (WHERE sent.sent_at > now() - interval '10 minutes'),
                            count(*) - $3 * w.weight)
            FROM (
                SELECT s.sent_at FROM outbox s
                WHERE s.sent_at IS NOT NULL AND s.export IS NOT NULL
                  AND s.pool = w.pool AND s.export = w.export
                  AND EXISTS (SELECT FROM runs r WHERE r.id = s.run AND r.state = 'queued' OFFSET 0)
                LIMIT 2 * $3 * w.weight
            ) sent) - (
            SELECT count(*) FROM (
                SELECT FROM waiters s
                WHERE s.resource LIKE 'slot/%' AND s.resource NOT LIKE 'slot/backfill/%'
                  AND s.pool = w.pool AND s.export = w.export
                LIMIT $3 * w.weight
            ) parked))
    ) first
), taken AS (
    UPDATE outbox o
    SET taken_until = clock_timestamp() + make_interval(secs => $2)
    FROM (SELECT * FROM due ORDER BY turn, since LIMIT $1) d
    CROSS JOIN LATERAL (
        SELECT x.version FROM outbox x
        WHERE x.version = d.version AND x.sent_at IS NULL
          AND (x.taken_until IS NULL OR x.taken_until < now())
        FOR UPDATE SKIP LOCKED
    ) locked
    WHERE o.version = locked.version
    RETURNING o.version, o.kind, o.run, o.epoch, o.pool, o.message, d.since, d.turn
)
SELECT t.version, t.kind, t.run, t.epoch, t.pool, row_to_json(x)::text AS record, x.body, t.message
FROM taken t LEFT JOIN LATERAL (
    SELECT r.id, r.key, r.edition, r.content, r.export, r.definition, r.revision, r.recipient,
           r.params, r.window_start, r.window_end, r.pool, r.correlation_id, r.traceparent,
           r.requested_by, r.not_before, r.deadline, r.state, r."end", r.epoch, r.fence,
           r.worker, r.heartbeat, r.failures, r.crashes, r.waits, r.failure, r.first_failed_at,
           r.decision, r.counts, r.quarantine, r.accepted_at, r.opened_at, r.ended_at,
           r.changed_at, r.needs, r.waiting_since,
           NULL AS parked, r.body
    FROM runs r
    WHERE r.id = CASE WHEN t.kind = 'letter' THEN t.run END
) x ON true
ORDER BY t.turn, t.since, t.version
