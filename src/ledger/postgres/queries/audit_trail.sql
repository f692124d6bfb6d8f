SELECT row_to_json(a)::text FROM audit a
WHERE $1::text IS NULL OR subject = $1
ORDER BY id DESC
LIMIT $2
