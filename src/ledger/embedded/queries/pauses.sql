SELECT json_object('scope', scope, 'name', name, 'until', stamp(until), 'by', "by",
    'reason', reason, 'at', stamp(at))
FROM pauses WHERE until IS NULL OR until > ?1
ORDER BY at, scope, name
