-- Why the sweeper should look at a run; see ledger::Adrift for the words.
(SELECT r.id, 'overdue' FROM runs r
 WHERE r.ended_at IS NULL AND r.state IN ('queued', 'running') AND r.deadline <= clock_timestamp()
 LIMIT $1)
UNION ALL
(SELECT r.id, 'silent' FROM runs r
 LEFT JOIN outbox o ON o.run = r.id AND o.kind = 'wake'
 WHERE r.ended_at IS NULL
   AND NOT EXISTS (SELECT 1 FROM waiters w WHERE w.run = r.id)
   AND (o.run IS NULL OR o.sent_at IS NOT NULL)
   AND CASE
       WHEN r.heartbeat IS NOT NULL
       THEN r.heartbeat < clock_timestamp()
            AND coalesce(o.sent_at, '-infinity') < greatest(r.heartbeat, clock_timestamp() - interval '1 minute')
       ELSE greatest(r.changed_at, coalesce(o.sent_at, '-infinity'))
            < clock_timestamp() - interval '1 hour'
       END
 LIMIT $1)
UNION ALL
(SELECT w.run, 'free' FROM waiters w
 LEFT JOIN resources s ON s.name = w.resource
 WHERE w.since < clock_timestamp() - interval '10 seconds'
   AND ((SELECT count(*) FROM holdings h WHERE h.resource = w.resource) < coalesce(s.capacity, 1)
        OR EXISTS (SELECT 1 FROM holdings h WHERE h.resource = w.resource AND h.run = w.run))
 ORDER BY w.since, w.run
 LIMIT $1)
UNION ALL
(SELECT r.id, 'stuck' FROM runs r
 WHERE r.ended_at IS NULL AND r.state IN ('committing', 'closing')
   AND r.changed_at < clock_timestamp() - interval '1 hour'
 LIMIT $1)
