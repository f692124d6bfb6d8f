-- ?1 export, ?2 limit.
WITH kept AS (
    SELECT k.resource, k.run, k.waits, r.export, r.state,
           r.id IS NULL OR r.ended_at IS NOT NULL AS wrong
    FROM (SELECT resource, run, 'false' AS waits FROM holdings
          UNION ALL
          SELECT resource, run, 'true' FROM waiters) k
    LEFT JOIN runs r ON r.id = k.run
    WHERE ?1 IS NULL OR r.export = ?1
)
SELECT json_object(
    'checked', (SELECT count(*) FROM kept),
    'found', json((SELECT json_group_array(json_object(
                  'resource', w.resource, 'run', w.run, 'export', w.export,
                  'waits', json(w.waits), 'state', w.state))
              FROM (SELECT * FROM kept WHERE wrong ORDER BY resource, run LIMIT ?2) w))
)
