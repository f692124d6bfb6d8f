-- Why the sweeper should look at a run; see ledger::Adrift for the words.
(SELECT r.id, 'overdue' FROM runs r
 WHERE r.ended_at IS NULL AND r.state IN ('queued', 'running') AND r.deadline <= now()
 LIMIT $1)
UNION ALL
-- A heartbeat that expired, unless a wake-up was sent for that. One that waits for its turn is of a
-- time when the run was queued.
(SELECT r.id, 'silent' FROM runs r
 LEFT JOIN outbox o ON o.run = r.id AND o.kind = 'wake'
 WHERE r.state IN ('running', 'committing', 'closing') AND r.heartbeat < now()
   AND (o.run IS NULL OR o.sent_at < r.heartbeat
        OR o.sent_at IS NULL AND o.export IS NOT NULL)
 LIMIT $1)
UNION ALL
-- A wake-up that was sent may wait in its queue for long: it has an hour, and twice the time
-- whenever it is sent again. How long it stood in line before does not matter.
(SELECT r.id, 'silent' FROM runs r
 LEFT JOIN outbox o ON o.run = r.id AND o.kind = 'wake'
 WHERE r.ended_at IS NULL AND r.changed_at < now() - interval '1 hour'
   AND (r.heartbeat IS NULL OR r.heartbeat < now())
   AND NOT EXISTS (SELECT 1 FROM waiters w WHERE w.run = r.id)
   AND (o.run IS NULL
        OR o.sent_at < now() - greatest(
            interval '1 hour',
            o.sent_at - greatest(coalesce(o.first_sent_at, o.sent_at), r.changed_at)))
   AND NOT (r.heartbeat IS NOT NULL
            AND (o.run IS NULL OR o.sent_at < r.heartbeat))
 LIMIT $1)
UNION ALL
-- Of each list of waiters as many of the first as there are free places: none while what is waited
-- for stands in the way, and all once a pause is lifted, or of a predecessor no run is open any more.
-- And those that wait for what they hold.
(WITH RECURSIVE names (name) AS (
     SELECT min(resource) FROM waiters
     UNION ALL
     SELECT (SELECT min(w.resource) FROM waiters w WHERE w.resource > n.name)
     FROM names n WHERE n.name IS NOT NULL
 ), lists AS MATERIALIZED (
     SELECT n.name, CASE
         WHEN n.name LIKE 'pause/%' THEN CASE WHEN EXISTS (
             SELECT 1 FROM pauses p
             WHERE concat_ws('/', 'pause', p.scope, nullif(p.name, '')) = n.name
               AND (p.until IS NULL OR p.until > now())) THEN 0 ELSE $1 END
         WHEN n.name LIKE 'after/%' THEN CASE WHEN coalesce(
             (SELECT bool_and(p.ended_at IS NOT NULL) FROM runs p
              WHERE p.export = split_part(n.name, '/', 2)
                AND p.window_start = r.window_start AND p.window_end = r.window_end
                AND p.supplements IS NULL),
             EXISTS (SELECT 1 FROM skipped s
                     WHERE s.export = split_part(n.name, '/', 2)
                       AND s.window_start = r.window_start AND s.window_end = r.window_end))
             THEN $1 ELSE 0 END
         ELSE greatest(0, coalesce(s.capacity, 1)
                          - (SELECT count(*) FROM holdings h WHERE h.resource = n.name))
         END AS places
     FROM names n
     LEFT JOIN resources s ON s.name = n.name
     -- All that wait for a predecessor have the same window.
     LEFT JOIN LATERAL (
         SELECT o.window_start, o.window_end FROM waiters w JOIN runs o ON o.id = w.run
         WHERE n.name LIKE 'after/%' AND w.resource = n.name
         ORDER BY w.since, w.run LIMIT 1
     ) r ON true
     WHERE n.name IS NOT NULL
 )
 SELECT w.run, 'free' FROM (
     SELECT w.run, w.since FROM lists l CROSS JOIN LATERAL (
         SELECT run, since FROM waiters WHERE resource = l.name ORDER BY since, run LIMIT l.places
     ) w
     UNION
     SELECT w.run, w.since
     FROM lists l JOIN holdings h ON h.resource = l.name
     JOIN waiters w ON w.run = h.run AND w.resource = l.name
 ) w
 WHERE w.since < now() - interval '10 seconds'
 ORDER BY w.since, w.run
 LIMIT $1)
UNION ALL
(SELECT r.id, 'stuck' FROM runs r
 WHERE r.state IN ('committing', 'closing')
   AND r.changed_at < now() - interval '1 hour'
 LIMIT $1)
