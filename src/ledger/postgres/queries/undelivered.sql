-- The places, from 0, of the files that are not known as they are now.
SELECT n.place - 1
FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS n (path, etag, place)
LEFT JOIN cursor_files f ON f.cursor = $1 AND f.path = n.path
WHERE f.etag IS DISTINCT FROM n.etag
ORDER BY n.place
