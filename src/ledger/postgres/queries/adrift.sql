-- Why the sweeper should look at a run; see ledger::Adrift for the words.
(SELECT r.id, 'overdue' FROM runs r
 WHERE r.ended_at IS NULL AND r.state IN ('queued', 'running') AND r.deadline <= now()
 LIMIT $1)
UNION ALL
-- A heartbeat that expired, unless a wake-up was sent for that.
(SELECT r.id, 'silent' FROM runs r
 LEFT JOIN outbox o ON o.run = r.id AND o.kind = 'wake'
 WHERE r.ended_at IS NULL AND r.state <> 'queued' AND r.heartbeat < now()
   AND (o.run IS NULL OR o.sent_at < r.heartbeat - interval '1 minute')
 LIMIT $1)
UNION ALL
-- A wake-up that was sent may wait in its queue for long: it has an hour, and twice the time
-- whenever it is sent again.
(SELECT r.id, 'silent' FROM runs r
 LEFT JOIN outbox o ON o.run = r.id AND o.kind = 'wake'
 WHERE r.ended_at IS NULL AND r.changed_at < now() - interval '1 hour'
   AND (r.heartbeat IS NULL OR r.heartbeat < now())
   AND NOT EXISTS (SELECT 1 FROM waiters w WHERE w.run = r.id)
   AND (o.run IS NULL
        OR o.sent_at < now() - greatest(interval '1 hour', o.sent_at - r.changed_at))
   AND NOT (r.heartbeat IS NOT NULL
            AND (o.run IS NULL OR o.sent_at < r.heartbeat - interval '1 minute'))
 LIMIT $1)
UNION ALL
-- Those that wait for a pause that is lifted, or for a predecessor of which no run is open any more;
-- of the others as many of the first waiters as there are free places.
(SELECT w.run, 'free' FROM (
     SELECT resource, run, since, row_number() OVER (PARTITION BY resource ORDER BY since, run) AS place
     FROM waiters
 ) w
 LEFT JOIN resources s ON s.name = w.resource
 WHERE w.since < now() - interval '10 seconds'
   AND CASE WHEN w.resource LIKE 'pause/%' THEN NOT EXISTS (
          SELECT 1 FROM pauses p
          WHERE concat_ws('/', 'pause', p.scope, nullif(p.name, '')) = w.resource
            AND (p.until IS NULL OR p.until > now()))
      WHEN w.resource LIKE 'after/%' THEN EXISTS (
          SELECT 1 FROM runs r
          WHERE r.id = w.run AND coalesce(
              (SELECT bool_and(p.ended_at IS NOT NULL) FROM runs p
               WHERE p.export = split_part(w.resource, '/', 2)
                 AND p.window_start = r.window_start AND p.window_end = r.window_end
                 AND p.supplements IS NULL),
              EXISTS (SELECT 1 FROM skipped s
               WHERE s.export = split_part(w.resource, '/', 2)
                 AND s.window_start = r.window_start AND s.window_end = r.window_end)))
      ELSE w.place <= coalesce(s.capacity, 1)
                      - (SELECT count(*) FROM holdings h WHERE h.resource = w.resource)
           OR EXISTS (SELECT 1 FROM holdings h WHERE h.resource = w.resource AND h.run = w.run)
      END
 ORDER BY w.since, w.run
 LIMIT $1)
UNION ALL
(SELECT r.id, 'stuck' FROM runs r
 WHERE r.ended_at IS NULL AND r.state IN ('committing', 'closing')
   AND r.changed_at < now() - interval '1 hour'
 LIMIT $1)
