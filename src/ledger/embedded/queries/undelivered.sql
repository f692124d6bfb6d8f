SELECT n.key
FROM json_each(?2) AS n
LEFT JOIN cursor_files AS f ON f.cursor = ?1 AND f.path = n.value ->> 'path'
WHERE f.etag IS NOT n.value ->> 'etag'
ORDER BY n.key
