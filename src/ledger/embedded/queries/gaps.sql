-- ?1 export, ?2 limit. Whoever sets or resets a cursor begins anew.
WITH moves AS MATERIALIZED (
    SELECT r.decision ->> '$.cursor.name' AS name, r.decision ->> '$.cursor.from' AS since,
           r.decision ->> '$.cursor.to' AS upto, r.id AS run, d.recorded_at AS at
    FROM deliveries d JOIN runs r ON r.id = d.run
    WHERE r.state = 'done' AND r.decision ->> '$.cursor.name' IS NOT NULL
      AND r.export = ?1
), chain AS (
    SELECT m.*, lag(run) OVER one AS before, lag(upto) OVER one AS upto_before,
           lag(at) OVER one AS at_before,
           lead(run) OVER one IS NULL AS is_last
    FROM moves m
    WINDOW one AS (PARTITION BY name ORDER BY at, run)
), gaps AS (
    SELECT c.name, c.run, c.upto_before AS expected, c.since AS found, 'false' AS stands
    FROM chain c
    WHERE c.before IS NOT NULL AND c.since IS NOT c.upto_before
      AND NOT EXISTS (SELECT 1 FROM audit a
                      WHERE a.subject = c.name AND a.action IN ('set cursor', 'reset cursor')
                        AND a.at BETWEEN c.at_before AND c.at)
    UNION ALL
    SELECT c.name, c.run, c.upto, s.value, 'true'
    FROM chain c LEFT JOIN cursors s ON s.name = c.name
    WHERE c.is_last AND s.value IS NOT c.upto
      AND NOT EXISTS (SELECT 1 FROM audit a
                      WHERE a.subject = c.name AND a.action IN ('set cursor', 'reset cursor')
                        AND a.at >= c.at)
)
SELECT json_object(
    'checked', (SELECT count(DISTINCT name) FROM moves),
    'found', json((SELECT json_group_array(json_object(
                  'cursor', g.name, 'run', g.run, 'export', ?1, 'expected', g.expected,
                  'found', g.found, 'stands', json(g.stands)))
              FROM (SELECT * FROM gaps ORDER BY name, run LIMIT ?2) g))
)
