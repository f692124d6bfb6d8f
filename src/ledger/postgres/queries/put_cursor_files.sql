INSERT INTO cursor_files (cursor, path, etag, run)
SELECT cursor, path, etag, run
FROM json_to_recordset($1) AS n (cursor text, path text, etag text, run uuid)
ON CONFLICT (cursor, path) DO UPDATE SET etag = excluded.etag, run = excluded.run
