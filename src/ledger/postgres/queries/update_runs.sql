UPDATE runs r
SET
    definition = n.definition, revision = n.revision, not_before = n.not_before,
    deadline = n.deadline, state = n.state, "end" = n."end", epoch = n.epoch, fence = n.fence,
    worker = n.worker, heartbeat = n.heartbeat, failures = n.failures, crashes = n.crashes,
    waits = n.waits, failure = n.failure, first_failed_at = n.first_failed_at,
    decision = n.decision, counts = n.counts, quarantine = n.quarantine, opened_at = n.opened_at,
    ended_at = n.ended_at, changed_at = n.changed_at, needs = n.needs,
    waiting_since = n.waiting_since, cap = n.cap, kept = n.kept, parent = n.parent,
    parts = n.parts
FROM json_populate_recordset(NULL::runs, $1) n
WHERE r.id = n.id
