DELETE FROM waiters w USING json_to_recordset($1) AS n (run uuid) WHERE w.run = n.run
