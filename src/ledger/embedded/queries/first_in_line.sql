-- The first ?4 in line that are due (now: ?3) of a pool (?1) and an export (?2), and which of them are
-- taken. What was put off lets the next go.
SELECT version, since, taken_until >= ?3
FROM (SELECT version, since, taken_until, due_at FROM outbox
      WHERE sent_at IS NULL AND export IS NOT NULL AND pool = ?1 AND export = ?2 AND since <= ?3
      ORDER BY since LIMIT 500)
WHERE due_at <= ?3
ORDER BY since LIMIT ?4
