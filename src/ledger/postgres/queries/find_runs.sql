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
    WHERE ($1::text IS NULL OR r.export = $1)
      AND (cardinality($2::text[]) = 0 OR r.state = ANY ($2))
      AND ($3::timestamptz IS NULL OR r.accepted_at >= $3)
      AND ($4::text IS NULL OR replace(r.id::text, '-', '') LIKE '%' || $4)
      AND ($5::text IS NULL OR r.key = $5)
      AND ($6::timestamptz IS NULL OR r.window_start >= $6)
      AND ($7::timestamptz IS NULL OR r.window_start < $7)
      AND (NOT $9 OR r.quarantine IS NOT NULL)
      AND ($10::uuid IS NULL OR r.parent = $10)
    ORDER BY r.accepted_at DESC, r.id DESC
    LIMIT $8
) x
