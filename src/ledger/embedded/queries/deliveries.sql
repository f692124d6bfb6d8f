SELECT json_object(
    'id', d.id, 'run', d.run, 'export', r.export, 'definition', r.definition,
    'revision', r.revision, 'key', r.key,
    'edition', r.edition, 'recipient', r.recipient, 'params', json(r.params),
    'window_start', stamp(r.window_start), 'window_end', stamp(r.window_end),
    'requested_by', r.requested_by, 'target', d.target,
    'files', coalesce(json_array_length(r.decision, '$.parts'), 0),
    'counts', json(r.counts), 'manifest_sha256', d.manifest_sha256,
    'recorded_at', stamp(d.recorded_at),
    'replaced_by', coalesce(
        (SELECT n.id FROM runs n
         WHERE n.key = r.key AND n.edition > r.edition AND n.state = 'done'
         ORDER BY n.edition LIMIT 1),
        (SELECT h.run FROM heads h
         WHERE h.target = d.target AND h.manifest_sha256 <> d.manifest_sha256
           AND json_array_length(r.decision, '$.parts') > 0)))
FROM deliveries d JOIN runs r ON r.id = d.run
WHERE (?1 IS NULL OR r.export = ?1)
  AND d.recorded_at >= coalesce(?2, -9223372036854775808)
  AND d.recorded_at < coalesce(?3, 9223372036854775807)
  AND (?4 IS NULL OR replace(d.id, '-', '') LIKE '%' || ?4
                  OR replace(d.run, '-', '') LIKE '%' || ?4)
ORDER BY d.recorded_at DESC, d.id DESC
LIMIT ?5
