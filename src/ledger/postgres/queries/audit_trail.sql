-- $1 to $7: the filter.
SELECT row_to_json(x)::text
FROM (
    SELECT a.at, a."by", a.action, a.subject, r.export, a.reason
    FROM audit a LEFT JOIN runs r
      ON r.id = CASE WHEN a.subject ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
                     THEN a.subject::uuid END
    WHERE ($1::text IS NULL OR a.subject = $1)
      AND ($2::text IS NULL
           OR replace(a.subject, '-', '') LIKE '%' || $2
              AND (a.subject LIKE '________-____-____-____-____________'
                   OR a.subject LIKE 'message %'))
      AND ($3::text IS NULL OR r.export = $3 OR a.subject = $3
           OR a.subject = 'pause/export/' || $3
           OR left(a.subject, length($3) + 7) = 'cursor/' || $3
              AND substr(a.subject, length($3) + 8, 1) IN (':', '@', '{'))
      AND ($4::text IS NULL OR position($4 IN a."by") > 0)
      AND ($5::text IS NULL OR position(' ' || $5 || ' ' IN ' ' || a.action || ' ') > 0)
      AND ($6::timestamptz IS NULL OR a.at >= $6)
    ORDER BY a.id DESC
    LIMIT $7
) x
