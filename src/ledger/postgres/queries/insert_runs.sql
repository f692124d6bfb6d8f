-- Each parameter is a column, in the order of `columns::whole`.
INSERT INTO runs (
    id, definition, revision, not_before, deadline, state, "end", epoch, fence, worker, heartbeat,
    failures, crashes, waits, failure, first_failed_at, decision, counts, quarantine, opened_at,
    ended_at, changed_at, needs, waiting_since, cap, kept, parent, parts, key, edition, content,
    export, recipient, params, window_start, window_end, pool, correlation_id, traceparent,
    requested_by, accepted_at, supplements, after, body
)
SELECT
    id, definition, revision, not_before, deadline, state, "end", epoch, fence, worker, heartbeat,
    failures, crashes, waits, failure::json, first_failed_at, decision::json, counts::json,
    quarantine, opened_at, ended_at, changed_at, needs::json, waiting_since, cap::json, kept,
    parent, parts, key, edition, content, export, recipient, params::json, window_start,
    window_end, pool, correlation_id, traceparent, requested_by, accepted_at, supplements::json,
    after::json, body
FROM unnest(
    $1::uuid[], $2::text[], $3::int[], $4::timestamptz[], $5::timestamptz[], $6::text[],
    $7::text[], $8::int[], $9::bigint[], $10::text[], $11::timestamptz[], $12::int[], $13::int[],
    $14::int[], $15::text[], $16::timestamptz[], $17::text[], $18::text[], $19::text[],
    $20::timestamptz[], $21::timestamptz[], $22::timestamptz[], $23::text[], $24::timestamptz[],
    $25::text[], $26::text[], $27::uuid[], $28::int[], $29::text[], $30::int[], $31::text[],
    $32::text[], $33::text[], $34::text[], $35::timestamptz[], $36::timestamptz[], $37::text[],
    $38::text[], $39::text[], $40::text[], $41::timestamptz[], $42::text[], $43::text[],
    $44::text[]
) AS n (
    id, definition, revision, not_before, deadline, state, "end", epoch, fence, worker, heartbeat,
    failures, crashes, waits, failure, first_failed_at, decision, counts, quarantine, opened_at,
    ended_at, changed_at, needs, waiting_since, cap, kept, parent, parts, key, edition, content,
    export, recipient, params, window_start, window_end, pool, correlation_id, traceparent,
    requested_by, accepted_at, supplements, after, body
)
-- In one order for all, so that two that insert the same keys cannot deadlock.
ORDER BY key, edition
