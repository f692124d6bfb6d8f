-- $1 the run behind which to begin, $2 export, $3 since, $4 until, $5 one run, $6 limit.
SELECT json_build_object(
    'run', r.id,
    'delivery', CASE WHEN d.run IS NOT NULL THEN json_build_object(
        'id', d.id, 'target', d.target, 'manifest_sha256', d.manifest_sha256) END,
    'head', (SELECT json_build_object('run', h.run, 'manifest_sha256', h.manifest_sha256)
             FROM heads h
             WHERE h.target = coalesce(d.target, (
                 SELECT substr(n.name, strpos(n.name, '/') + 1) FROM json_array_elements_text(r.needs)
                     WITH ORDINALITY AS n (name, at)
                 WHERE n.name LIKE 'target/%' OR n.name LIKE 'own/%' ORDER BY n.at LIMIT 1))),
    'deliveries', (SELECT count(*) FROM runs n JOIN deliveries e ON e.run = n.id
                   WHERE n.key = r.key AND n.edition = r.edition),
    'superseded', EXISTS (SELECT 1 FROM runs n
                          WHERE n.key = r.key AND n.edition > r.edition AND n.state = 'done'),
    'wake', (SELECT json_build_object('sent_at', o.sent_at) FROM outbox o
             WHERE o.run = r.id AND o.kind = 'wake'),
    'letter', EXISTS (SELECT 1 FROM outbox o WHERE o.run = r.id AND o.kind = 'letter'),
    'settled', r.state IN ('dead', 'expired') AND EXISTS (
        SELECT 1 FROM audit a
        WHERE a.subject = r.id::text AND a.action IN ('drop', 'resolve')
          AND a.at >= r.ended_at)
)::text
FROM runs r LEFT JOIN deliveries d ON d.run = r.id
WHERE r.id > coalesce($1::uuid, '00000000-0000-0000-0000-000000000000')
  AND ($2::text IS NULL OR r.export = $2)
  AND ($3::timestamptz IS NULL OR r.accepted_at >= $3)
  AND ($4::timestamptz IS NULL OR r.accepted_at < $4)
  AND r.id BETWEEN coalesce($5::uuid, '00000000-0000-0000-0000-000000000000')
               AND coalesce($5::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
ORDER BY r.id
LIMIT $6
