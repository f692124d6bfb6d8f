-- The ledger. Times are instants; names of states and classes are the words of the documentation.

-- Every content of every export that ever was active.
CREATE TABLE definitions (
    export      text        NOT NULL,
    revision    integer     NOT NULL,
    hash        text        NOT NULL,
    content     text        NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    applied_by  text        NOT NULL,
    PRIMARY KEY (export, revision),
    UNIQUE (export, hash)
);

CREATE TABLE active_definitions (
    export text PRIMARY KEY,
    hash   text NOT NULL,
    FOREIGN KEY (export, hash) REFERENCES definitions (export, hash)
);

CREATE TABLE runs (
    id              uuid        PRIMARY KEY,
    key             text        NOT NULL,
    edition         integer     NOT NULL,
    content         text        NOT NULL,
    export          text        NOT NULL,
    definition      text        NOT NULL,
    revision        integer     NOT NULL,
    recipient       text,
    params          json        NOT NULL,
    window_start    timestamptz,
    window_end      timestamptz,
    pool            text        NOT NULL,
    body            text        NOT NULL,
    correlation_id  text,
    traceparent     text,
    requested_by    text,
    not_before      timestamptz,
    deadline        timestamptz,
    state           text        NOT NULL,
    "end"           text,
    epoch           integer     NOT NULL,
    fence           bigint      NOT NULL,
    worker          text,
    heartbeat       timestamptz,
    failures        integer     NOT NULL,
    crashes         integer     NOT NULL,
    waits           integer     NOT NULL,
    failure         json,
    first_failed_at timestamptz,
    decision        json,
    counts          json,
    quarantine      text,
    accepted_at     timestamptz NOT NULL,
    opened_at       timestamptz,
    ended_at        timestamptz,
    changed_at      timestamptz NOT NULL,
    needs           json        NOT NULL,
    waiting_since   timestamptz,
    UNIQUE (key, edition)
);
CREATE INDEX runs_open ON runs (changed_at) WHERE ended_at IS NULL;
-- What the sweeper asks for: few of the open runs are held or have a deadline.
CREATE INDEX runs_held ON runs (state) WHERE ended_at IS NULL AND state <> 'queued';
CREATE INDEX runs_deadline ON runs (deadline) WHERE ended_at IS NULL AND deadline IS NOT NULL;
CREATE INDEX runs_export ON runs (export, accepted_at DESC);
CREATE INDEX runs_accepted ON runs (accepted_at DESC);
CREATE INDEX runs_ended ON runs (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX runs_window ON runs (export, window_start) WHERE window_start IS NOT NULL;

CREATE TABLE attempts (
    run       uuid        NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    fence     bigint      NOT NULL,
    epoch     integer     NOT NULL,
    worker    text        NOT NULL,
    opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at  timestamptz,
    outcome   text,
    class     text,
    message   text,
    PRIMARY KEY (run, fence)
);

-- What runs hold and wait for. The row of a resource is the lock under which both are read.
CREATE TABLE resources (
    name     text    PRIMARY KEY,
    capacity integer NOT NULL
);
CREATE TABLE holdings (
    resource text NOT NULL,
    run      uuid NOT NULL,
    PRIMARY KEY (resource, run)
);
CREATE TABLE waiters (
    run      uuid        PRIMARY KEY,
    resource text        NOT NULL,
    since    timestamptz NOT NULL,
    pool     text        NOT NULL,
    epoch    integer     NOT NULL
);
CREATE INDEX waiters_resource ON waiters (resource, since, run);

-- What is to be published: `wake` for a run that is open, `letter` for a dead one, and `clean` to
-- wake a worker that cleans up after one that has ended. A version is never given twice, so that
-- marking one sent cannot hide what took its place meanwhile.
CREATE SEQUENCE outbox_version;
CREATE TABLE outbox (
    run         uuid        NOT NULL,
    kind        text        NOT NULL,
    version     bigint      NOT NULL DEFAULT nextval('outbox_version'),
    epoch       integer     NOT NULL,
    pool        text,
    due_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    taken_until timestamptz,
    sent_at     timestamptz,
    PRIMARY KEY (run, kind)
);
CREATE INDEX outbox_due ON outbox (due_at) WHERE sent_at IS NULL;

CREATE TABLE deliveries (
    id              uuid        PRIMARY KEY,
    run             uuid        NOT NULL UNIQUE REFERENCES runs (id) ON DELETE CASCADE,
    target          text        NOT NULL,
    manifest_sha256 text        NOT NULL,
    recorded_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The manifest that stands at each target, by whatever key.
CREATE TABLE heads (
    target          text PRIMARY KEY,
    manifest_sha256 text NOT NULL,
    run             uuid NOT NULL
);

CREATE TABLE cursors (
    name     text        PRIMARY KEY,
    value    text        NOT NULL,
    run      uuid        NOT NULL,
    moved_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE schedules (
    export    text        PRIMARY KEY,
    last_tick timestamptz NOT NULL
);

-- Windows that a schedule's catch-up left out.
CREATE TABLE skipped (
    export       text        NOT NULL,
    window_start timestamptz NOT NULL,
    window_end   timestamptz NOT NULL,
    at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (export, window_start)
);

CREATE TABLE audit (
    id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    "by"    text        NOT NULL,
    action  text        NOT NULL,
    subject text        NOT NULL,
    reason  text        NOT NULL
);
CREATE INDEX audit_subject ON audit (subject, at DESC);
