UPDATE runs
SET
    definition = value ->> 'definition', revision = value ->> 'revision',
    not_before = micros(value ->> 'not_before'), deadline = micros(value ->> 'deadline'),
    state = value ->> 'state', "end" = value ->> 'end', epoch = value ->> 'epoch',
    fence = value ->> 'fence', worker = value ->> 'worker',
    heartbeat = micros(value ->> 'heartbeat'), failures = value ->> 'failures',
    crashes = value ->> 'crashes', waits = value ->> 'waits',
    failure = nullif(value -> 'failure', 'null'),
    first_failed_at = micros(value ->> 'first_failed_at'),
    decision = nullif(value -> 'decision', 'null'), counts = nullif(value -> 'counts', 'null'),
    quarantine = value ->> 'quarantine',
    opened_at = micros(value ->> 'opened_at'), ended_at = micros(value ->> 'ended_at'),
    changed_at = micros(value ->> 'changed_at'), needs = nullif(value -> 'needs', 'null'),
    waiting_since = micros(value ->> 'waiting_since'), cap = nullif(value -> 'cap', 'null'),
    kept = value ->> 'kept',
    parent = value ->> 'parent', parts = value ->> 'parts'
FROM json_each(?1)
WHERE runs.id = value ->> 'id'
