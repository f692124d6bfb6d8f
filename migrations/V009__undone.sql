-- Of a long history few runs are not done: the sweeper, workers and lists find them by their state.
DROP INDEX runs_held;
CREATE INDEX runs_undone ON runs (state, accepted_at DESC) WHERE state <> 'done';
