-- Definitions of an export (?1), with one content (?2), or only the active ones (?3).
SELECT json_object('export', d.export, 'revision', d.revision, 'hash', d.hash,
    'content', d.content, 'applied_at', stamp(d.applied_at), 'applied_by', d.applied_by,
    'active', json(iif(a.hash IS NOT NULL, 'true', 'false')))
FROM definitions d LEFT JOIN active_definitions a ON a.export = d.export AND a.hash = d.hash
WHERE (?1 IS NULL OR d.export = ?1) AND (?2 IS NULL OR d.hash = ?2)
  AND (NOT ?3 OR a.hash IS NOT NULL)
ORDER BY d.export, d.revision DESC
