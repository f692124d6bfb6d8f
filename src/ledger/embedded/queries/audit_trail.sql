SELECT json_object('at', stamp(at), 'by', "by", 'action', action, 'subject', subject,
    'reason', reason)
FROM audit WHERE ?1 IS NULL OR subject = ?1
ORDER BY id DESC LIMIT ?2
