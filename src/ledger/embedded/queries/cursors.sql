SELECT json_object('name', n.name, 'value', c.value,
    'run', nullif(c.run, '00000000-0000-0000-0000-000000000000'),
    'moved_at', stamp(c.moved_at), 'held_by', h.run,
    'files', (SELECT nullif(count(*), 0) FROM cursor_files AS f WHERE f.cursor = n.name))
FROM (SELECT name FROM cursors UNION SELECT resource FROM holdings) AS n
LEFT JOIN cursors AS c ON c.name = n.name
LEFT JOIN holdings AS h ON h.resource = n.name
WHERE substr(n.name, 1, length('cursor/' || ?1)) = 'cursor/' || ?1
  AND substr(n.name, length('cursor/' || ?1) + 1, 1) IN (':', '@', '{')
ORDER BY n.name
