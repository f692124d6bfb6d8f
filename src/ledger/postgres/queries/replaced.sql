-- A run that had nothing to deliver is recorded with the manifest that it left standing: what stands
-- is replaced by the first that comes after the last of its rows.
SELECT r.decision ->> 'manifest'
FROM (
    SELECT run, max(until) OVER (PARTITION BY manifest_sha256) AS replaced_at
    FROM (
        SELECT run, manifest_sha256,
               coalesce(lead(recorded_at) OVER (ORDER BY recorded_at, id), 'infinity') AS until
        FROM deliveries WHERE target = $1
    ) AS each
) AS d
JOIN runs r ON r.id = d.run
WHERE d.replaced_at < $2 AND r.decision IS NOT NULL
ORDER BY d.replaced_at DESC
LIMIT $3
