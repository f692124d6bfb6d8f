-- What operators are told, and what they hold back.

-- Notices are rows of the outbox of the kinds `notice-dead`, `notice-late` and `notice-stuck`. Those
-- of the last two stay after they were sent, so that each epoch of a run is told of once.
ALTER TABLE outbox ADD COLUMN tries integer NOT NULL DEFAULT 0;
CREATE INDEX outbox_notices ON outbox (due_at) WHERE sent_at IS NULL AND kind LIKE 'notice-%';
CREATE INDEX runs_scheduled ON runs (accepted_at) WHERE ended_at IS NULL AND requested_by = 'scheduler';

-- What is held back, by whom and why; the name is empty where the scope is `all` or `schedules`.
CREATE TABLE pauses (
    scope  text        NOT NULL,
    name   text        NOT NULL,
    until  timestamptz,
    "by"   text        NOT NULL,
    reason text        NOT NULL,
    at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (scope, name)
);
