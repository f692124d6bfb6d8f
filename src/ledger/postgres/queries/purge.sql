-- A run that was spread goes before its parts, once all of them are old: until then it tells of their
-- window. A part without it goes by itself, in the next call.
WITH old AS (
    SELECT id, export, window_start, window_end, ended_at, params::text AS params, parent,
           -- Asked of each by itself: EXISTS would first read all that are not done.
           coalesce((SELECT 'dead' FROM runs p WHERE p.parent = runs.id AND p.state <> 'done' LIMIT 1),
                    state) AS state
    FROM runs
    WHERE ended_at < $1
      AND (parent IS NULL OR NOT EXISTS (SELECT 1 FROM runs w WHERE w.id = runs.parent))
      AND NOT EXISTS (SELECT 1 FROM runs p
                      WHERE p.parent = runs.id AND (p.ended_at IS NULL OR p.ended_at >= $1))
    ORDER BY ended_at LIMIT $2 FOR UPDATE SKIP LOCKED
), windows AS (
    -- A window whose history is gone was still delivered: no schedule may find it missing.
    -- One of which the same params were delivered stays so, whatever became of its other runs.
    INSERT INTO skipped (export, window_start, window_end, at, why, params)
    SELECT DISTINCT ON (export, window_start, params)
           export, window_start, window_end, ended_at, state, params
    FROM old WHERE window_start IS NOT NULL AND parent IS NULL
    ORDER BY export, window_start, params, state <> 'done'
    ON CONFLICT (export, window_start, params) DO UPDATE SET at = excluded.at, why = excluded.why
    WHERE skipped.why <> 'done'
), letters AS (
    DELETE FROM outbox WHERE run IN (SELECT id FROM old)
), attempts AS (
    DELETE FROM attempts WHERE run IN (SELECT id FROM old)
), deliveries AS (
    DELETE FROM deliveries WHERE run IN (SELECT id FROM old)
)
DELETE FROM runs WHERE id IN (SELECT id FROM old)
