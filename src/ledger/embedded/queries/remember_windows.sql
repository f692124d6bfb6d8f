-- What became of the windows of runs (?1) whose history is deleted. One of which the same
-- params were delivered stays so, whatever became of its other runs.
INSERT INTO skipped (export, window_start, window_end, at, why, params)
SELECT export, window_start, window_end, ended_at,
       CASE WHEN EXISTS (SELECT 1 FROM runs p WHERE p.parent = runs.id AND p.state <> 'done')
            THEN 'dead' ELSE state END AS why,
       params FROM runs
WHERE id IN (SELECT value FROM json_each(?1)) AND window_start IS NOT NULL
  AND parent IS NULL
ORDER BY why = 'done'
ON CONFLICT (export, window_start, params) DO UPDATE SET at = excluded.at, why = excluded.why
WHERE skipped.why <> 'done'
