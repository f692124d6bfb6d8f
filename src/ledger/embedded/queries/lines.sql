-- Where wake-ups wait for their turns: pool, export, and its weight. The index is asked for the next of
-- them each time, however many wait in one line.
WITH RECURSIVE lines (pool, export) AS (
    SELECT * FROM (SELECT pool, export FROM outbox WHERE sent_at IS NULL AND export IS NOT NULL
                   ORDER BY pool, export LIMIT 1)
    UNION ALL
    SELECT o.pool, o.export FROM lines l JOIN outbox o ON o.rowid = (
        SELECT n.rowid FROM outbox n
        WHERE n.sent_at IS NULL AND n.export IS NOT NULL AND (n.pool, n.export) > (l.pool, l.export)
        ORDER BY n.pool, n.export LIMIT 1)
)
SELECT l.pool, l.export,
       coalesce((SELECT weight FROM active_definitions d WHERE d.export = l.export), 1)
FROM lines l
