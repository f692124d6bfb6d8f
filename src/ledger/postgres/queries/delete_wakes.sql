DELETE FROM outbox o USING json_to_recordset($1) AS n (run uuid)
WHERE o.run = n.run AND o.kind = 'wake'
