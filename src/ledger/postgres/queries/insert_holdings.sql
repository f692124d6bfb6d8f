INSERT INTO holdings (resource, run)
SELECT resource, run FROM json_to_recordset($1) AS n (resource text, run uuid)
ON CONFLICT DO NOTHING
