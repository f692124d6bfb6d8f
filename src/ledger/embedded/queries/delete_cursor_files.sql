DELETE FROM cursor_files WHERE cursor IN (SELECT value FROM json_each(?1))
