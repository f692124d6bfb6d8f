SELECT r.decision ->> 'manifest'
FROM (
    SELECT run, max(until) OVER (PARTITION BY manifest_sha256) AS replaced_at
    FROM (
        SELECT run, manifest_sha256,
               coalesce(lead(recorded_at) OVER (ORDER BY recorded_at, id), 9223372036854775807)
                   AS until
        FROM deliveries WHERE target = ?1
    ) AS each
) AS d
JOIN runs AS r ON r.id = d.run
WHERE d.replaced_at < ?2 AND r.decision IS NOT NULL
ORDER BY d.replaced_at DESC
LIMIT ?3
