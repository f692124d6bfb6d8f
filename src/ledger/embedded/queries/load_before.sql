-- What is known of an export (?1) in exactly this window (?2, ?3); see the PostgreSQL query of this
-- name.
SELECT json_object('export', ?1, 'start', stamp(?2), 'end', stamp(?3), 'run', id, 'key', key,
                   'edition', edition, 'state', state, 'why', '')
FROM runs WHERE export = ?1 AND window_start = ?2 AND window_end = ?3 AND supplements IS NULL
UNION ALL
SELECT json_object('export', ?1, 'start', stamp(?2), 'end', stamp(?3), 'run', NULL, 'key', '',
                   'edition', 0, 'state', NULL, 'why', why)
FROM skipped WHERE export = ?1 AND window_start = ?2 AND window_end = ?3
