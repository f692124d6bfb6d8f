-- See the PostgreSQL migration of the same name for what it is for.
DROP INDEX runs_held;
CREATE INDEX runs_undone ON runs (state, accepted_at DESC) WHERE state <> 'done';
