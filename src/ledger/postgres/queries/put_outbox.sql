-- A posting takes the place of an earlier one of its run and kind, under a new version. It takes
-- turns where it wakes a run that is queued, and has the place in line of the time since when that
-- could begin, whatever it has waited for meanwhile. What a slot was free for has had its turn, and
-- still has until it is opened or parked. When a wake-up was first sent is kept until the run changes.
INSERT INTO outbox (run, kind, epoch, pool, due_at, since, export)
SELECT n.run, n.kind, n.epoch, n.pool, coalesce(n.due_at, clock_timestamp()),
       coalesce(r.since, n.due_at, clock_timestamp()), r.export
FROM json_to_recordset($1)
     AS n (run uuid, kind text, epoch int, pool text, due_at timestamptz, had_turn boolean)
LEFT JOIN LATERAL (
    SELECT export, greatest(accepted_at, not_before) AS since
    -- By its id, not among all that are queued.
    FROM (SELECT * FROM runs WHERE id = n.run OFFSET 0) AS run
    WHERE n.kind = 'wake' AND state = 'queued' AND n.had_turn IS NOT TRUE
      AND NOT (waiting_since IS NOT NULL AND EXISTS (
          SELECT FROM outbox o WHERE o.run = n.run AND o.kind = 'wake' AND o.export IS NULL))
    OFFSET 0
) r ON true
ORDER BY run, kind
ON CONFLICT (run, kind) DO UPDATE
SET version = nextval('outbox_version'), epoch = excluded.epoch, pool = excluded.pool,
    due_at = excluded.due_at, since = excluded.since, export = excluded.export, tries = 0,
    taken_until = NULL, sent_at = NULL,
    first_sent_at = (SELECT outbox.first_sent_at FROM runs r
                     WHERE r.id = outbox.run AND r.changed_at <= outbox.first_sent_at)
