-- Takes what is due, oldest first, for a while; two dispatchers never wait for one another. An
-- index can be asked for what is before now(), which stands still, not for clock_timestamp().
WITH due AS (
    SELECT run, kind FROM outbox
    WHERE sent_at IS NULL AND due_at <= now() AND kind NOT LIKE 'notice-%'
      AND (taken_until IS NULL OR taken_until < now())
    ORDER BY due_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE outbox o
    SET taken_until = clock_timestamp() + make_interval(secs => $2)
    FROM due
    WHERE o.run = due.run AND o.kind = due.kind
    RETURNING o.version, o.kind, o.run, o.epoch, o.pool, o.due_at
)
SELECT t.version, t.kind, t.run, t.epoch, t.pool, row_to_json(x)::text AS record, x.body
FROM taken t LEFT JOIN LATERAL (
    SELECT r.id, r.key, r.edition, r.content, r.export, r.definition, r.revision, r.recipient,
           r.params, r.window_start, r.window_end, r.pool, r.correlation_id, r.traceparent,
           r.requested_by, r.not_before, r.deadline, r.state, r."end", r.epoch, r.fence,
           r.worker, r.heartbeat, r.failures, r.crashes, r.waits, r.failure, r.first_failed_at,
           r.decision, r.counts, r.quarantine, r.accepted_at, r.opened_at, r.ended_at,
           r.changed_at, r.needs, r.waiting_since,
           NULL AS parked, r.body
    FROM runs r
    WHERE r.id = t.run AND t.kind = 'letter'
) x ON true
ORDER BY t.due_at, t.version
