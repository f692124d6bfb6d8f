SELECT row_to_json(p)::text FROM pauses p
WHERE scope = $1 AND name = $2 AND (until IS NULL OR until > clock_timestamp())
FOR UPDATE
