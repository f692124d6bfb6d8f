INSERT INTO audit ("by", action, subject, reason)
SELECT "by", action, subject, reason
FROM json_to_recordset($1) AS n ("by" text, action text, subject text, reason text)
