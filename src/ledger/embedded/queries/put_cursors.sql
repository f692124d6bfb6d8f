INSERT OR REPLACE INTO cursors (name, value, run, moved_at)
SELECT value ->> 'name', value ->> 'value', value ->> 'run', ?2 FROM json_each(?1)
