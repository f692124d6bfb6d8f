-- One window may have a run for each combination of params: what is known of one that has none is
-- known of its params, as the job gave or would have given them.
ALTER TABLE skipped ADD COLUMN params text NOT NULL DEFAULT '{}';
ALTER TABLE skipped DROP CONSTRAINT skipped_pkey;
ALTER TABLE skipped ADD PRIMARY KEY (export, window_start, params);

-- The run that was spread over tables, of whose runs this is one; and over how many it was spread.
ALTER TABLE runs ADD COLUMN parent uuid;
ALTER TABLE runs ADD COLUMN parts integer;
CREATE INDEX runs_parent ON runs (parent) WHERE parent IS NOT NULL;
