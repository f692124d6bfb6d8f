INSERT INTO runs (
    id, key, edition, content, export, definition, revision, recipient, params, window_start,
    window_end, pool, correlation_id, traceparent, requested_by, not_before, deadline, state,
    "end", epoch, fence, worker, heartbeat, failures, crashes, waits, failure, first_failed_at,
    decision, counts, quarantine, accepted_at, opened_at, ended_at, changed_at, needs,
    waiting_since, cap, kept, supplements, parent, parts, after, body
)
SELECT
    value ->> 'id', value ->> 'key', value ->> 'edition', value ->> 'content',
    value ->> 'export', value ->> 'definition', value ->> 'revision', value ->> 'recipient',
    nullif(value -> 'params', 'null'), micros(value ->> 'window_start'),
    micros(value ->> 'window_end'), value ->> 'pool', value ->> 'correlation_id',
    value ->> 'traceparent', value ->> 'requested_by', micros(value ->> 'not_before'),
    micros(value ->> 'deadline'), value ->> 'state', value ->> 'end', value ->> 'epoch',
    value ->> 'fence', value ->> 'worker', micros(value ->> 'heartbeat'), value ->> 'failures',
    value ->> 'crashes', value ->> 'waits', nullif(value -> 'failure', 'null'),
    micros(value ->> 'first_failed_at'), nullif(value -> 'decision', 'null'),
    nullif(value -> 'counts', 'null'), value ->> 'quarantine', micros(value ->> 'accepted_at'),
    micros(value ->> 'opened_at'), micros(value ->> 'ended_at'), micros(value ->> 'changed_at'),
    nullif(value -> 'needs', 'null'), micros(value ->> 'waiting_since'),
    nullif(value -> 'cap', 'null'), value ->> 'kept',
    nullif(value -> 'supplements', 'null'), value ->> 'parent', value ->> 'parts',
    value -> 'after', value ->> 'body'
FROM json_each(?1)
