INSERT INTO runs (
    id, key, edition, content, export, definition, revision, recipient, params, window_start,
    window_end, pool, correlation_id, traceparent, requested_by, not_before, deadline, state,
    "end", epoch, fence, worker, heartbeat, failures, crashes, waits, failure, first_failed_at,
    decision, counts, quarantine, accepted_at, opened_at, ended_at, changed_at, needs,
    waiting_since, cap, kept, supplements, parent, parts, after, body
)
SELECT
    id, key, edition, content, export, definition, revision, recipient, params, window_start,
    window_end, pool, correlation_id, traceparent, requested_by, not_before, deadline, state,
    "end", epoch, fence, worker, heartbeat, failures, crashes, waits, failure, first_failed_at,
    decision, counts, quarantine, accepted_at, opened_at, ended_at, changed_at, needs,
    waiting_since, cap, kept, supplements, parent, parts, after, body
FROM json_populate_recordset(NULL::runs, $1)
-- In one order for all, so that two that insert the same keys cannot deadlock.
ORDER BY key, edition
