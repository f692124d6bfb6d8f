SELECT row_to_json(x)::text
FROM (
    SELECT r.id, r.key, r.edition, r.content, r.export, r.definition, r.revision, r.recipient,
           r.params, r.window_start, r.window_end, r.pool, r.correlation_id, r.traceparent,
           r.requested_by, r.not_before, r.deadline, r.state, r."end", r.epoch, r.fence,
           r.worker, r.heartbeat, r.failures, r.crashes, r.waits, r.failure, r.first_failed_at,
           r.decision, r.counts, r.quarantine, r.accepted_at, r.opened_at, r.ended_at,
           r.changed_at, r.needs, r.waiting_since, r.cap, r.kept, r.supplements, r.parent, r.parts,
           r.after,
           w.resource AS parked
    FROM runs r LEFT JOIN waiters w ON w.run = r.id
    /* what is asked for */
) x
