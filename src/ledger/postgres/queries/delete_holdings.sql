DELETE FROM holdings h USING json_to_recordset($1) AS n (resource text, run uuid)
WHERE h.resource = n.resource AND h.run = n.run
