-- Takes postings until ?2; ?1 is a JSON array of their versions.
UPDATE outbox SET taken_until = ?2
WHERE version IN (SELECT value FROM json_each(?1))
RETURNING version, kind, run, epoch, pool, message
