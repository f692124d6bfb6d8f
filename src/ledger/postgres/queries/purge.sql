WITH old AS (
    SELECT id, export, window_start, window_end FROM runs
    WHERE ended_at < $1 ORDER BY ended_at LIMIT $2 FOR UPDATE SKIP LOCKED
), windows AS (
    -- A window whose history is gone was still delivered: no schedule may find it missing.
    INSERT INTO skipped (export, window_start, window_end)
    SELECT DISTINCT ON (export, window_start) export, window_start, window_end FROM old
    WHERE window_start IS NOT NULL
    ON CONFLICT DO NOTHING
), letters AS (
    DELETE FROM outbox WHERE run IN (SELECT id FROM old)
)
DELETE FROM runs WHERE id IN (SELECT id FROM old)
