-- The files that cursors over files have delivered, each in the state in which it was last. They
-- belong to the cursor, and stay when the history of runs is deleted.
CREATE TABLE cursor_files (
    cursor text NOT NULL,
    path   text NOT NULL,
    etag   text NOT NULL,
    run    uuid NOT NULL,
    PRIMARY KEY (cursor, path)
);

-- By which is found what was replaced at a target.
CREATE INDEX deliveries_target ON deliveries (target, recorded_at);
