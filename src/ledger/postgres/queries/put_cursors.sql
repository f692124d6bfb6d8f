INSERT INTO cursors (name, value, run)
SELECT name, value, run FROM json_to_recordset($1) AS n (name text, value text, run uuid)
ON CONFLICT (name) DO UPDATE
SET value = excluded.value, run = excluded.run, moved_at = clock_timestamp()
