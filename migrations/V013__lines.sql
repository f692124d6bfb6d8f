-- Who stands in line keeps his place, which is the time since when the run could have begun, though
-- he is due later: what a queue refused, and what a worker had no memory for, is still the oldest.
-- And from when a wake-up was first sent, the sweeper tells how long it waits for it.
ALTER TABLE outbox ADD COLUMN since timestamptz NOT NULL DEFAULT now();
ALTER TABLE outbox ADD COLUMN first_sent_at timestamptz;
UPDATE outbox SET since = due_at WHERE export IS NOT NULL;
DROP INDEX outbox_turns;
CREATE INDEX outbox_turns ON outbox (pool, export, since)
    WHERE sent_at IS NULL AND export IS NOT NULL;
