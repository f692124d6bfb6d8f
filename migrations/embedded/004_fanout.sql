-- See the PostgreSQL migration of the same number for what each table and column means.
ALTER TABLE skipped RENAME TO skipped_before;
CREATE TABLE skipped (
    export       TEXT    NOT NULL,
    window_start INTEGER NOT NULL,
    window_end   INTEGER NOT NULL,
    at           INTEGER NOT NULL,
    why          TEXT    NOT NULL DEFAULT 'catch-up',
    params       TEXT    NOT NULL DEFAULT '{}',
    PRIMARY KEY (export, window_start, params)
) STRICT;
INSERT INTO skipped (export, window_start, window_end, at, why)
SELECT export, window_start, window_end, at, why FROM skipped_before;
DROP TABLE skipped_before;

ALTER TABLE runs ADD COLUMN parent TEXT;
ALTER TABLE runs ADD COLUMN parts INTEGER;
CREATE INDEX runs_parent ON runs (parent) WHERE parent IS NOT NULL;
