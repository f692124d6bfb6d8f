-- Each parameter is a column, in the order of `columns::changing`.
UPDATE runs r
SET
    definition = n.definition, revision = n.revision, not_before = n.not_before,
    deadline = n.deadline, state = n.state, "end" = n."end", epoch = n.epoch, fence = n.fence,
    worker = n.worker, heartbeat = n.heartbeat, failures = n.failures, crashes = n.crashes,
    waits = n.waits, failure = n.failure::json, first_failed_at = n.first_failed_at,
    decision = n.decision::json, counts = n.counts::json, quarantine = n.quarantine,
    opened_at = n.opened_at, ended_at = n.ended_at, changed_at = n.changed_at,
    needs = n.needs::json, waiting_since = n.waiting_since, cap = n.cap::json, kept = n.kept,
    parent = n.parent, parts = n.parts
FROM unnest(
    $1::uuid[], $2::text[], $3::int[], $4::timestamptz[], $5::timestamptz[], $6::text[],
    $7::text[], $8::int[], $9::bigint[], $10::text[], $11::timestamptz[], $12::int[], $13::int[],
    $14::int[], $15::text[], $16::timestamptz[], $17::text[], $18::text[], $19::text[],
    $20::timestamptz[], $21::timestamptz[], $22::timestamptz[], $23::text[], $24::timestamptz[],
    $25::text[], $26::text[], $27::uuid[], $28::int[]
) AS n (
    id, definition, revision, not_before, deadline, state, "end", epoch, fence, worker, heartbeat,
    failures, crashes, waits, failure, first_failed_at, decision, counts, quarantine, opened_at,
    ended_at, changed_at, needs, waiting_since, cap, kept, parent, parts
)
WHERE r.id = n.id
