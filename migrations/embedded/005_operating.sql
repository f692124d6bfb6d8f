-- See the PostgreSQL migration of the same number for what each table and column means.
ALTER TABLE outbox ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;
CREATE INDEX outbox_notices ON outbox (due_at) WHERE sent_at IS NULL AND kind LIKE 'notice-%';
CREATE INDEX runs_scheduled ON runs (accepted_at) WHERE ended_at IS NULL AND requested_by = 'scheduler';
CREATE TABLE pauses (
    scope  TEXT    NOT NULL,
    name   TEXT    NOT NULL,
    until  INTEGER,
    "by"   TEXT    NOT NULL,
    reason TEXT    NOT NULL,
    at     INTEGER NOT NULL,
    PRIMARY KEY (scope, name)
) STRICT;
