-- See the PostgreSQL migration of the same name for what it is for.
ALTER TABLE outbox ADD COLUMN since INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN first_sent_at INTEGER;
UPDATE outbox SET since = due_at;
DROP INDEX outbox_turns;
CREATE INDEX outbox_turns ON outbox (pool, export, since)
    WHERE sent_at IS NULL AND export IS NOT NULL;
