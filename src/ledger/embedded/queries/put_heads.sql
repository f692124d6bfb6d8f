INSERT OR REPLACE INTO heads (target, manifest_sha256, run)
SELECT value ->> 'target', value ->> 'manifest_sha256', value ->> 'run' FROM json_each(?1)
