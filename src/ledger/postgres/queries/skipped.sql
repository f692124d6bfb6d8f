SELECT row_to_json(x)::text
FROM (
    SELECT window_start AS start, window_end AS "end", at, nullif(why, 'catch-up') AS ended,
           params::json AS params
    FROM skipped
    WHERE export = $1 AND window_start >= $2 AND window_start < $3
    ORDER BY window_start, skipped.params
) x
