SELECT row_to_json(x)::text
FROM (
    SELECT n.name, c.value, nullif(c.run, '00000000-0000-0000-0000-000000000000') AS run,
           c.moved_at, h.run AS held_by,
           (SELECT nullif(count(*), 0) FROM cursor_files f WHERE f.cursor = n.name) AS files
    FROM (SELECT name FROM cursors UNION SELECT resource FROM holdings) n
    LEFT JOIN cursors c ON c.name = n.name
    LEFT JOIN holdings h ON h.resource = n.name
    WHERE starts_with(n.name, 'cursor/' || $1)
      AND substr(n.name, length('cursor/' || $1) + 1, 1) IN (':', '@', '{')
) x
ORDER BY name
