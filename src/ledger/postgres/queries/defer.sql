-- Due again after $2 seconds, twice as many each time that it happens, and at most $3. As in
-- mark_sent, what was replaced meanwhile is left alone, and what is locked is being replaced.
WITH mine AS (
    SELECT run, kind FROM outbox WHERE version = ANY ($1) FOR UPDATE SKIP LOCKED
)
UPDATE outbox o
SET due_at = clock_timestamp()
             + make_interval(secs => least($2::float8 * 2 ^ least(tries, 30), $3::float8)),
    tries = tries + 1, taken_until = NULL
FROM mine m
WHERE o.run = m.run AND o.kind = m.kind
