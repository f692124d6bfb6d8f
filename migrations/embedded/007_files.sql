CREATE TABLE cursor_files (
    cursor TEXT NOT NULL,
    path   TEXT NOT NULL,
    etag   TEXT NOT NULL,
    run    TEXT NOT NULL,
    PRIMARY KEY (cursor, path)
) STRICT, WITHOUT ROWID;

-- By which is found what was replaced at a target.
CREATE INDEX deliveries_target ON deliveries (target, recorded_at);
