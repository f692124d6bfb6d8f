INSERT INTO audit (at, "by", action, subject, reason)
SELECT ?2, value ->> 'by', value ->> 'action', value ->> 'subject', value ->> 'reason'
FROM json_each(?1)
