SELECT json_object(
    'start', stamp(window_start), 'end', stamp(window_end), 'at', stamp(at),
    'ended', nullif(why, 'catch-up'),
    'params', json(params))
FROM skipped
WHERE export = ?1 AND window_start >= ?2 AND window_start < ?3
ORDER BY window_start, params
