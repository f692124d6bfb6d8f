DELETE FROM cursors WHERE name IN (SELECT json_array_elements_text($1))
