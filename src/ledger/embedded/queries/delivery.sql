SELECT json_object('id', d.id, 'run', d.run, 'export', r.export, 'target', d.target,
    'manifest_sha256', d.manifest_sha256, 'manifest', r.decision ->> 'manifest',
    'counts', json(r.counts), 'recorded_at', stamp(d.recorded_at))
FROM deliveries d JOIN runs r ON r.id = d.run
WHERE d.run = ?1
