-- What was replaced meanwhile has another version, and stays to be sent. A letter is not needed
-- any more; a wake-up's row tells the sweeper when it was sent.
WITH letters AS (
    DELETE FROM outbox WHERE version = ANY ($1) AND kind = 'letter'
)
UPDATE outbox SET sent_at = clock_timestamp(), taken_until = NULL
WHERE version = ANY ($1) AND kind = 'wake'
