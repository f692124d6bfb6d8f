DELETE FROM outbox o USING json_to_recordset($1) AS n (run uuid, kind text)
WHERE o.run = n.run AND o.kind = n.kind
