SELECT count(*) FROM runs r
WHERE ($1::text IS NULL OR r.export = $1)
  AND ($2::timestamptz IS NULL OR r.accepted_at >= $2)
  AND ($3::timestamptz IS NULL OR r.accepted_at < $3)
