-- See the PostgreSQL migration of the same number for what each column means.
ALTER TABLE runs ADD COLUMN kept TEXT;
ALTER TABLE runs ADD COLUMN supplements TEXT;
CREATE INDEX runs_quarantine ON runs (accepted_at DESC) WHERE quarantine IS NOT NULL;
