-- See the PostgreSQL migration of the same number for what each index and column is for.
DROP INDEX runs_held;
CREATE INDEX runs_undone ON runs (state, accepted_at DESC) WHERE state <> 'done';
ALTER TABLE schedules ADD COLUMN definition TEXT;
