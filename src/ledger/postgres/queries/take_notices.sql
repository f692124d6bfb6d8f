-- As take_due does with what is to be published.
WITH due AS (
    SELECT run, kind FROM outbox
    WHERE sent_at IS NULL AND kind LIKE 'notice-%' AND due_at <= now()
      AND (taken_until IS NULL OR taken_until < now())
    ORDER BY due_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
)
UPDATE outbox o
SET taken_until = clock_timestamp() + make_interval(secs => $2)
FROM due
WHERE o.run = due.run AND o.kind = due.kind
RETURNING o.version, o.kind, o.epoch, o.tries, o.run
