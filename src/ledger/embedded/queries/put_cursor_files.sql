INSERT OR REPLACE INTO cursor_files (cursor, path, etag, run)
SELECT value ->> 'cursor', value ->> 'path', value ->> 'etag', value ->> 'run' FROM json_each(?1)
