SELECT r.decision ->> 'manifest'
FROM (
    SELECT run, lead(recorded_at) OVER (ORDER BY recorded_at, id) AS replaced_at
    FROM deliveries WHERE target = ?1
) AS d
JOIN runs AS r ON r.id = d.run
WHERE d.replaced_at < ?2 AND r.decision IS NOT NULL
ORDER BY d.replaced_at DESC
LIMIT ?3
