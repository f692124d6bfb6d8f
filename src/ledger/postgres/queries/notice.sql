-- Tells of scheduled runs that have not ended $1 seconds after they were accepted or last replayed,
-- and of those that are stuck, at most $2 of each. A row that is there tells that it was done.
WITH found AS (
    (SELECT r.id, 'notice-late' AS kind, r.epoch FROM runs r
     WHERE r.ended_at IS NULL AND r.requested_by = 'scheduler'
       AND r.accepted_at < now() - make_interval(secs => $1)
       AND (r.epoch = 0 OR (SELECT max(a.at) FROM audit a
                            WHERE a.subject = r.id::text AND a.action = 'replay')
                           < now() - make_interval(secs => $1))
       AND NOT EXISTS (SELECT 1 FROM outbox o
                       WHERE o.run = r.id AND o.kind = 'notice-late' AND o.epoch = r.epoch)
     LIMIT $2)
    UNION ALL
    (SELECT r.id, 'notice-stuck', r.epoch FROM runs r
     WHERE r.state IN ('committing', 'closing')
       AND r.changed_at < now() - interval '1 hour'
       AND NOT EXISTS (SELECT 1 FROM outbox o
                       WHERE o.run = r.id AND o.kind = 'notice-stuck' AND o.epoch = r.epoch)
     LIMIT $2)
)
INSERT INTO outbox (run, kind, epoch)
SELECT id, kind, epoch FROM found ORDER BY id, kind
ON CONFLICT (run, kind) DO UPDATE
SET version = nextval('outbox_version'), epoch = excluded.epoch, due_at = excluded.due_at,
    tries = 0, taken_until = NULL, sent_at = NULL
WHERE outbox.epoch < excluded.epoch
