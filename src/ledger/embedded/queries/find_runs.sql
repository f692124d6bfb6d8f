SELECT json_object(
        'id', r.id, 'key', r.key, 'edition', r.edition, 'content', r.content, 'export', r.export,
        'definition', r.definition, 'revision', r.revision, 'recipient', r.recipient,
        'params', json(r.params), 'window_start', stamp(r.window_start),
        'window_end', stamp(r.window_end), 'pool', r.pool, 'correlation_id', r.correlation_id,
        'traceparent', r.traceparent, 'requested_by', r.requested_by,
        'not_before', stamp(r.not_before), 'deadline', stamp(r.deadline), 'state', r.state,
        'end', r."end", 'epoch', r.epoch, 'fence', r.fence, 'worker', r.worker,
        'heartbeat', stamp(r.heartbeat), 'failures', r.failures, 'crashes', r.crashes,
        'waits', r.waits, 'failure', json(r.failure),
        'first_failed_at', stamp(r.first_failed_at), 'decision', json(r.decision),
        'counts', json(r.counts), 'quarantine', r.quarantine,
        'accepted_at', stamp(r.accepted_at), 'opened_at', stamp(r.opened_at),
        'ended_at', stamp(r.ended_at),
        'changed_at', stamp(r.changed_at), 'needs', json(r.needs),
        'waiting_since', stamp(r.waiting_since), 'cap', json(r.cap),
        'kept', r.kept, 'supplements', json(r.supplements),
        'parent', r.parent, 'parts', r.parts,
        'after', json(r.after),
        'parked', w.resource)
FROM runs r LEFT JOIN waiters w ON w.run = r.id
/* what is asked for */
