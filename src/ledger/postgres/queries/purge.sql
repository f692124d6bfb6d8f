WITH old AS (
    SELECT id FROM runs WHERE ended_at < $1 ORDER BY ended_at LIMIT $2 FOR UPDATE SKIP LOCKED
), letters AS (
    DELETE FROM outbox WHERE run IN (SELECT id FROM old)
)
DELETE FROM runs WHERE id IN (SELECT id FROM old)
