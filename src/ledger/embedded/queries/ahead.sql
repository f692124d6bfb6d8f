-- How many runs of a pool (?1) and an export (?2) are ahead of those in line, at least ?3 where they are
-- as many: of which the wake-up is sent and the run is queued still, and those that wait for a slot of
-- a connection. What was sent before ?4 may be lost: as many as ?3 of it count for nothing.
SELECT (SELECT max(count(*) FILTER (WHERE sent_at > ?4), count(*) - ?3) FROM (
            SELECT o.sent_at FROM outbox o
            WHERE o.sent_at IS NOT NULL AND o.export IS NOT NULL AND o.pool = ?1 AND o.export = ?2
              AND (SELECT state FROM runs r WHERE r.id = o.run) = 'queued'
            LIMIT 2 * ?3))
     + (SELECT count(*) FROM (
            SELECT 1 FROM waiters w
            WHERE w.resource LIKE 'slot/%' AND w.resource NOT LIKE 'slot/backfill/%'
              AND w.pool = ?1 AND w.export = ?2
            LIMIT ?3))
