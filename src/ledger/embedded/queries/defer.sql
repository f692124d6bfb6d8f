-- Due again ?3 microseconds from now (?2), twice as many each time that it happens, and at most ?4.
UPDATE outbox
SET due_at = ?2 + min(?3 << min(tries, 20), ?4), tries = tries + 1, taken_until = NULL
WHERE version IN (SELECT value FROM json_each(?1))
