-- The exports whose runs for the same window must be done before a run is first opened.
ALTER TABLE runs ADD COLUMN after TEXT NOT NULL DEFAULT '[]';
