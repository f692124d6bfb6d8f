-- A posting takes the place of an earlier one of its run and kind, under a new version. It takes
-- turns where it wakes a run that is queued; and what is due keeps the place that it has had since
-- it could first begin, whatever it has waited for meanwhile.
INSERT INTO outbox (run, kind, epoch, pool, due_at, export)
SELECT n.run, n.kind, n.epoch, n.pool,
       CASE WHEN n.due_at > clock_timestamp() THEN n.due_at
            ELSE least(coalesce(n.due_at, clock_timestamp()), r.since) END,
       r.export
FROM json_to_recordset($1)
     AS n (run uuid, kind text, epoch int, pool text, due_at timestamptz)
LEFT JOIN LATERAL (
    SELECT export, greatest(accepted_at, not_before) AS since FROM runs
    WHERE id = n.run AND n.kind = 'wake' AND state = 'queued' OFFSET 0
) r ON true
ORDER BY run, kind
ON CONFLICT (run, kind) DO UPDATE
SET version = nextval('outbox_version'), epoch = excluded.epoch, pool = excluded.pool,
    due_at = excluded.due_at, export = excluded.export, tries = 0, taken_until = NULL,
    sent_at = NULL
