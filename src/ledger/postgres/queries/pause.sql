-- $1 to $5: the pause; $6: what the audit trail calls it; $7: what it says of it.
WITH made AS (
    INSERT INTO pauses (scope, name, until, "by", reason) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (scope, name) DO UPDATE
    SET until = excluded.until, "by" = excluded."by", reason = excluded.reason, at = excluded.at
)
INSERT INTO audit ("by", action, subject, reason) VALUES ($4, 'pause', $6, $7)
