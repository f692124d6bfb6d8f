-- What was replaced meanwhile has another version, and stays to be sent. A row that is locked is
-- being replaced: should that come to nothing, it is sent once more, which is harmless. A letter
-- is not needed any more; a wake-up's row tells the sweeper when it was sent.
WITH mine AS (
    SELECT run, kind FROM outbox WHERE version = ANY ($1) FOR UPDATE SKIP LOCKED
), letters AS (
    DELETE FROM outbox o USING mine m
    WHERE o.run = m.run AND o.kind = m.kind AND o.kind = 'letter'
)
UPDATE outbox o SET sent_at = clock_timestamp(), taken_until = NULL
FROM mine m
WHERE o.run = m.run AND o.kind = m.kind AND o.kind = 'wake'
