-- $1, $2: the scope; $3, $4: who and why; $5: what the audit trail calls it.
WITH lifted AS (
    DELETE FROM pauses
    WHERE scope = $1 AND name = $2 AND (until IS NULL OR until > clock_timestamp())
    RETURNING 1
)
INSERT INTO audit ("by", action, subject, reason) SELECT $3, 'resume', $5, $4 FROM lifted
