-- ?1 to ?7: the filter.
SELECT json_object('at', stamp(a.at), 'by', a."by", 'action', a.action, 'subject', a.subject,
    'export', r.export, 'reason', a.reason)
FROM audit a LEFT JOIN runs r ON r.id = a.subject
WHERE (?1 IS NULL OR a.subject = ?1)
  AND (?2 IS NULL
       OR replace(a.subject, '-', '') LIKE '%' || ?2
          AND (a.subject LIKE '________-____-____-____-____________'
               OR a.subject LIKE 'message %'))
  AND (?3 IS NULL OR r.export = ?3 OR a.subject = ?3
       OR a.subject = 'pause/export/' || ?3
       OR substr(a.subject, 1, length(?3) + 7) = 'cursor/' || ?3
          AND substr(a.subject, length(?3) + 8, 1) IN (':', '@', '{'))
  AND (?4 IS NULL OR instr(a."by", ?4) > 0)
  AND (?5 IS NULL OR instr(' ' || a.action || ' ', ' ' || ?5 || ' ') > 0)
  AND (?6 IS NULL OR a.at >= ?6)
ORDER BY a.id DESC
LIMIT ?7
