-- ?1 the run behind which to begin, ?2 export, ?3 since, ?4 until, ?5 one run, ?6 limit.
SELECT json_object(
    'run', r.id,
    'delivery', json(CASE WHEN d.run IS NOT NULL THEN json_object(
        'id', d.id, 'target', d.target, 'manifest_sha256', d.manifest_sha256) END),
    'head', json((SELECT json_object('run', h.run, 'manifest_sha256', h.manifest_sha256)
                  FROM heads h
                  WHERE h.target = coalesce(d.target, (
                      SELECT substr(n.value, instr(n.value, '/') + 1) FROM json_each(r.needs) n
                      WHERE n.value LIKE 'target/%' OR n.value LIKE 'own/%' ORDER BY n.key LIMIT 1)))),
    'deliveries', (SELECT count(*) FROM runs n JOIN deliveries e ON e.run = n.id
                   WHERE n.key = r.key AND n.edition = r.edition),
    'superseded', json(iif(EXISTS (
        SELECT 1 FROM runs n
        WHERE n.key = r.key AND n.edition > r.edition AND n.state = 'done'), 'true', 'false')),
    'wake', json((SELECT json_object('sent_at', stamp(o.sent_at)) FROM outbox o
                  WHERE o.run = r.id AND o.kind = 'wake')),
    'letter', json(iif(EXISTS (
        SELECT 1 FROM outbox o WHERE o.run = r.id AND o.kind = 'letter'), 'true', 'false')),
    'settled', json(iif(r.state IN ('dead', 'expired') AND EXISTS (
        SELECT 1 FROM audit a
        WHERE a.subject = r.id AND a.action IN ('drop', 'resolve')
          AND a.at >= r.ended_at), 'true', 'false'))
)
FROM runs r LEFT JOIN deliveries d ON d.run = r.id
WHERE r.id > coalesce(?1, '')
  AND (?2 IS NULL OR r.export = ?2)
  AND (?3 IS NULL OR r.accepted_at >= ?3)
  AND (?4 IS NULL OR r.accepted_at < ?4)
  AND r.id BETWEEN coalesce(?5, '') AND coalesce(?5, 'g')
ORDER BY r.id
LIMIT ?6
