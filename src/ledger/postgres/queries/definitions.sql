-- Definitions of an export ($1), with one content ($2), or only the active ones ($3).
SELECT row_to_json(x)::text
FROM (
    SELECT d.*, a.hash IS NOT NULL AS active
    FROM definitions d LEFT JOIN active_definitions a ON a.export = d.export AND a.hash = d.hash
    WHERE ($1::text IS NULL OR d.export = $1)
      AND ($2::text IS NULL OR d.hash = $2)
      AND (NOT $3 OR a.hash IS NOT NULL)
    ORDER BY d.export, d.revision DESC
) x
