-- One window may have a run for each combination of params: what is known of one that has none is
-- known of its params, as the job gave or would have given them.
ALTER TABLE skipped ADD COLUMN params text NOT NULL DEFAULT '{}';
ALTER TABLE skipped DROP CONSTRAINT skipped_pkey;
ALTER TABLE skipped ADD PRIMARY KEY (export, window_start, params);
