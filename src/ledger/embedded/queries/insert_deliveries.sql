INSERT INTO deliveries (id, run, target, manifest_sha256, recorded_at)
SELECT value ->> 'id', value ->> 'run', value ->> 'target', value ->> 'manifest_sha256', ?2
FROM json_each(?1)
