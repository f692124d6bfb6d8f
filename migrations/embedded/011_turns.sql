-- See the PostgreSQL migration of the same name for what it is for.
ALTER TABLE active_definitions ADD COLUMN weight INTEGER NOT NULL DEFAULT 1;
ALTER TABLE waiters ADD COLUMN export TEXT;
ALTER TABLE outbox ADD COLUMN export TEXT;
ALTER TABLE outbox ADD COLUMN message TEXT;
UPDATE waiters SET export = (SELECT r.export FROM runs r WHERE r.id = waiters.run);
UPDATE outbox
SET export = (SELECT r.export FROM runs r WHERE r.id = outbox.run AND r.state = 'queued')
WHERE kind = 'wake';
DROP INDEX outbox_due;
CREATE INDEX outbox_due ON outbox (due_at) WHERE sent_at IS NULL AND export IS NULL;
CREATE INDEX outbox_turns ON outbox (pool, export, due_at)
    WHERE sent_at IS NULL AND export IS NOT NULL;
CREATE INDEX outbox_ahead ON outbox (pool, export) WHERE sent_at IS NOT NULL AND export IS NOT NULL;
CREATE INDEX waiters_ahead ON waiters (pool, export)
    WHERE resource LIKE 'slot/%' AND resource NOT LIKE 'slot/backfill/%';
