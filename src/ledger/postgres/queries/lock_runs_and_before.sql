-- As lock_runs, with all runs of some exports ($3) in exactly these windows ($4, $5).
SELECT id, xmin::text FROM runs
WHERE id IN (
    SELECT id FROM runs WHERE id = ANY ($1) OR key = ANY ($2)
    UNION ALL
    SELECT r.id
    FROM unnest($3::text[], $4::timestamptz[], $5::timestamptz[]) AS n (export, "start", "end")
    JOIN runs r
      ON r.export = n.export AND r.window_start = n."start" AND r.window_end = n."end"
)
ORDER BY id
FOR UPDATE
