-- The runs that are named ($1), every edition of the keys that are ($2), and of those that are remembered ($3)
-- the ones that another transaction has written since ($4).
SELECT row_to_json(x)::text AS run, x.superseded
FROM (
    SELECT r.id, r.key, r.edition, r.content, r.export, r.definition, r.revision, r.recipient,
           r.params, r.window_start, r.window_end, r.pool, r.correlation_id, r.traceparent,
           r.requested_by, r.not_before, r.deadline, r.state, r."end", r.epoch, r.fence,
           r.worker, r.heartbeat, r.failures, r.crashes, r.waits, r.failure, r.first_failed_at,
           r.decision, r.counts, r.quarantine, r.accepted_at, r.opened_at, r.ended_at,
           r.changed_at, r.needs, r.waiting_since, r.cap, r.kept, r.supplements, r.parent, r.parts,
           r.after,
           w.resource AS parked,
           EXISTS (SELECT 1 FROM runs n
                   WHERE n.key = r.key AND n.edition > r.edition
                     -- Of supplements only the newest edition may deliver at all.
                     AND (n.state IN ('committing', 'done') OR n.supplements IS NOT NULL))
               -- And none whose rows were read and delivered anew.
               OR r.supplements IS NOT NULL AND EXISTS (
                   SELECT 1 FROM runs b JOIN runs n ON n.key = b.key AND n.edition > b.edition
                   WHERE b.id = (r.supplements ->> 'first')::uuid
                     AND n.state IN ('committing', 'done'))
               AS superseded
    FROM runs r LEFT JOIN waiters w ON w.run = r.id
    WHERE r.id = ANY ($1) OR r.key = ANY ($2) OR r.id = ANY (ARRAY(
        SELECT k.id FROM unnest($3::uuid[], $4::text[]) AS k (id, written_by)
        CROSS JOIN LATERAL (SELECT xmin FROM runs WHERE id = k.id OFFSET 0) s
        WHERE s.xmin <> k.written_by::xid))
) x
