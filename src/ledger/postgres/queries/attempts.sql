SELECT row_to_json(a)::text FROM attempts a WHERE run = $1 ORDER BY fence
