-- By which postings are marked sent and put off.
CREATE UNIQUE INDEX outbox_sent ON outbox (version);

-- Of a long history few runs are not done: the sweeper, workers and lists find them by their state.
DROP INDEX runs_held;
CREATE INDEX runs_undone ON runs (state, accepted_at DESC) WHERE state <> 'done';

-- The hash of the definition that was followed at the last tick. Under another one, windows may be
-- missing that closed long before.
ALTER TABLE schedules ADD COLUMN definition text;
