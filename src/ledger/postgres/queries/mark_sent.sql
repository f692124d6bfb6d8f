-- What was replaced meanwhile has another version, and stays to be sent. A row that is locked is
-- being replaced: should that come to nothing, it is sent once more, which is harmless. What
-- was sent is not needed any more; but the row of an open run's wake-up tells the sweeper when it
-- was sent, and some notices' rows that they were.
WITH mine AS (
    SELECT run, kind FROM outbox WHERE version = ANY ($1) FOR UPDATE SKIP LOCKED
), others AS (
    DELETE FROM outbox o USING mine m
    WHERE o.run = m.run AND o.kind = m.kind AND m.kind IN ('letter', 'clean', 'job', 'notice-dead')
)
UPDATE outbox o
SET sent_at = clock_timestamp(), first_sent_at = coalesce(first_sent_at, clock_timestamp()),
    taken_until = NULL
FROM mine m
WHERE o.run = m.run AND o.kind = m.kind AND m.kind NOT IN ('letter', 'clean', 'job', 'notice-dead')
