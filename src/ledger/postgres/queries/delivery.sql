SELECT json_build_object(
    'id', d.id, 'run', d.run, 'export', r.export, 'target', d.target,
    'manifest_sha256', d.manifest_sha256, 'manifest', r.decision ->> 'manifest',
    'counts', r.counts, 'recorded_at', d.recorded_at)::text
FROM deliveries d JOIN runs r ON r.id = d.run
WHERE d.run = $1
