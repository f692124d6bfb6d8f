-- What is known of exports ($1) in exactly these windows ($2, $3): their runs, and how a window ended
-- that has none.
WITH n AS (
    SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[]) AS n (export, "start", "end")
)
SELECT row_to_json(x)::text
FROM (
    SELECT n.*, r.id AS run, r.key, r.edition, r.state, '' AS why
    FROM n JOIN runs r
      ON r.export = n.export AND r.window_start = n."start" AND r.window_end = n."end"
     -- A supplement delivers nothing that the window lacks.
     AND r.supplements IS NULL
    UNION ALL
    SELECT n.*, NULL, '', 0, NULL, s.why
    FROM n JOIN skipped s
      ON s.export = n.export AND s.window_start = n."start" AND s.window_end = n."end"
) x
