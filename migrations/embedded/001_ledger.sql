-- The embedded ledger. Times are microseconds since 1970 in UTC; see the PostgreSQL migration of
-- the same number for what each table means.

CREATE TABLE definitions (
    export      TEXT    NOT NULL,
    revision    INTEGER NOT NULL,
    hash        TEXT    NOT NULL,
    content     TEXT    NOT NULL,
    applied_at  INTEGER NOT NULL,
    applied_by  TEXT    NOT NULL,
    PRIMARY KEY (export, revision),
    UNIQUE (export, hash)
) STRICT;
CREATE TABLE active_definitions (export TEXT PRIMARY KEY, hash TEXT NOT NULL) STRICT;

CREATE TABLE runs (
    id              TEXT    PRIMARY KEY,
    key             TEXT    NOT NULL,
    edition         INTEGER NOT NULL,
    content         TEXT    NOT NULL,
    export          TEXT    NOT NULL,
    definition      TEXT    NOT NULL,
    revision        INTEGER NOT NULL,
    recipient       TEXT,
    params          TEXT    NOT NULL,
    window_start    INTEGER,
    window_end      INTEGER,
    pool            TEXT    NOT NULL,
    body            TEXT    NOT NULL,
    correlation_id  TEXT,
    traceparent     TEXT,
    requested_by    TEXT,
    not_before      INTEGER,
    deadline        INTEGER,
    state           TEXT    NOT NULL,
    "end"           TEXT,
    epoch           INTEGER NOT NULL,
    fence           INTEGER NOT NULL,
    worker          TEXT,
    heartbeat       INTEGER,
    failures        INTEGER NOT NULL,
    crashes         INTEGER NOT NULL,
    waits           INTEGER NOT NULL,
    failure         TEXT,
    first_failed_at INTEGER,
    decision        TEXT,
    counts          TEXT,
    quarantine      TEXT,
    accepted_at     INTEGER NOT NULL,
    opened_at       INTEGER,
    ended_at        INTEGER,
    changed_at      INTEGER NOT NULL,
    needs           TEXT    NOT NULL,
    waiting_since   INTEGER,
    UNIQUE (key, edition)
) STRICT;
CREATE INDEX runs_open ON runs (changed_at) WHERE ended_at IS NULL;
-- What the sweeper asks for: few of the open runs are held or have a deadline.
CREATE INDEX runs_held ON runs (state) WHERE ended_at IS NULL AND state <> 'queued';
CREATE INDEX runs_deadline ON runs (deadline) WHERE ended_at IS NULL AND deadline IS NOT NULL;
CREATE INDEX runs_export ON runs (export, accepted_at DESC);
CREATE INDEX runs_accepted ON runs (accepted_at DESC);
CREATE INDEX runs_ended ON runs (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX runs_window ON runs (export, window_start) WHERE window_start IS NOT NULL;

CREATE TABLE attempts (
    run       TEXT    NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    fence     INTEGER NOT NULL,
    epoch     INTEGER NOT NULL,
    worker    TEXT    NOT NULL,
    opened_at INTEGER NOT NULL,
    ended_at  INTEGER,
    outcome   TEXT,
    class     TEXT,
    message   TEXT,
    PRIMARY KEY (run, fence)
) STRICT;

CREATE TABLE resources (name TEXT PRIMARY KEY, capacity INTEGER NOT NULL) STRICT;
CREATE TABLE holdings (
    resource TEXT NOT NULL,
    run      TEXT NOT NULL,
    PRIMARY KEY (resource, run)
) STRICT;
CREATE TABLE waiters (
    run      TEXT    PRIMARY KEY,
    resource TEXT    NOT NULL,
    since    INTEGER NOT NULL,
    pool     TEXT    NOT NULL,
    epoch    INTEGER NOT NULL
) STRICT;
CREATE INDEX waiters_resource ON waiters (resource, since, run);

-- The last version that was given; it never starts again.
CREATE TABLE outbox_version (last INTEGER NOT NULL) STRICT;
INSERT INTO outbox_version VALUES (0);
CREATE TABLE outbox (
    run         TEXT    NOT NULL,
    kind        TEXT    NOT NULL,
    version     INTEGER NOT NULL UNIQUE,
    epoch       INTEGER NOT NULL,
    pool        TEXT,
    due_at      INTEGER NOT NULL,
    taken_until INTEGER,
    sent_at     INTEGER,
    PRIMARY KEY (run, kind)
) STRICT;
CREATE INDEX outbox_due ON outbox (due_at) WHERE sent_at IS NULL;

CREATE TABLE deliveries (
    id              TEXT    PRIMARY KEY,
    run             TEXT    NOT NULL UNIQUE REFERENCES runs (id) ON DELETE CASCADE,
    target          TEXT    NOT NULL,
    manifest_sha256 TEXT    NOT NULL,
    recorded_at     INTEGER NOT NULL
) STRICT;
CREATE TABLE heads (
    target          TEXT PRIMARY KEY,
    manifest_sha256 TEXT NOT NULL,
    run             TEXT NOT NULL
) STRICT;
CREATE TABLE cursors (
    name     TEXT    PRIMARY KEY,
    value    TEXT    NOT NULL,
    run      TEXT    NOT NULL,
    moved_at INTEGER NOT NULL
) STRICT;
CREATE TABLE schedules (export TEXT PRIMARY KEY, last_tick INTEGER NOT NULL) STRICT;
CREATE TABLE skipped (
    export       TEXT    NOT NULL,
    window_start INTEGER NOT NULL,
    window_end   INTEGER NOT NULL,
    at           INTEGER NOT NULL,
    PRIMARY KEY (export, window_start)
) STRICT;
CREATE TABLE audit (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    "by"    TEXT    NOT NULL,
    action  TEXT    NOT NULL,
    subject TEXT    NOT NULL,
    reason  TEXT    NOT NULL
) STRICT;
CREATE INDEX audit_subject ON audit (subject, at DESC);
