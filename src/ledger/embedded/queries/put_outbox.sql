-- A posting takes the place of an earlier one of its run and kind, under a new version; see the
-- PostgreSQL query of this name for its place in line.
INSERT OR REPLACE INTO outbox
    (run, kind, version, epoch, pool, due_at, since, export, first_sent_at)
SELECT n.value ->> 'run', n.value ->> 'kind', (SELECT last FROM outbox_version) + n.key + 1,
       n.value ->> 'epoch', n.value ->> 'pool', coalesce(micros(n.value ->> 'due_at'), ?2),
       coalesce(max(q.accepted_at, coalesce(q.not_before, q.accepted_at)),
                micros(n.value ->> 'due_at'), ?2),
       q.export, iif(r.changed_at <= o.first_sent_at, o.first_sent_at, NULL)
FROM json_each(?1) n
LEFT JOIN runs r ON r.id = n.value ->> 'run' AND n.value ->> 'kind' = 'wake'
LEFT JOIN outbox o ON o.run = r.id AND o.kind = 'wake'
LEFT JOIN runs q ON q.id = r.id AND r.state = 'queued' AND NOT coalesce(n.value ->> 'had_turn', 0)
                AND NOT (r.waiting_since IS NOT NULL AND o.run IS NOT NULL AND o.export IS NULL)
