-- The first ?4 in line that are due (now: ?3) of a pool (?1) and an export (?2), and which of them are
-- taken.
SELECT version, due_at, taken_until >= ?3
FROM outbox
WHERE sent_at IS NULL AND export IS NOT NULL AND pool = ?1 AND export = ?2 AND due_at <= ?3
ORDER BY due_at LIMIT ?4
