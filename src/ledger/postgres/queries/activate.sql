INSERT INTO active_definitions (export, hash) VALUES ($1, $2)
ON CONFLICT (export) DO UPDATE SET hash = excluded.hash
