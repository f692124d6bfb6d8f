-- A posting takes the place of an earlier one of its run and kind, under a new version.
INSERT INTO outbox (run, kind, epoch, pool, due_at)
SELECT run, kind, epoch, pool, coalesce(due_at, clock_timestamp())
FROM json_to_recordset($1)
     AS n (run uuid, kind text, epoch int, pool text, due_at timestamptz)
ORDER BY run, kind
ON CONFLICT (run, kind) DO UPDATE
SET version = nextval('outbox_version'), epoch = excluded.epoch, pool = excluded.pool,
    due_at = excluded.due_at, tries = 0, taken_until = NULL, sent_at = NULL
