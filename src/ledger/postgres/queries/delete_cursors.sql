WITH files AS (
    DELETE FROM cursor_files WHERE cursor IN (SELECT json_array_elements_text($1))
)
DELETE FROM cursors WHERE name IN (SELECT json_array_elements_text($1))
