INSERT INTO active_definitions (export, hash, weight) VALUES ($1, $2, $3)
ON CONFLICT (export) DO UPDATE SET hash = excluded.hash, weight = excluded.weight
