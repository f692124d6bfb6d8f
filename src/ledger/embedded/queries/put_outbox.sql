-- A posting takes the place of an earlier one of its run and kind, under a new version. It takes
-- turns where it wakes a run that is queued; and what is due keeps the place that it has had since
-- it could first begin, whatever it has waited for meanwhile.
INSERT OR REPLACE INTO outbox (run, kind, version, epoch, pool, due_at, export)
SELECT n.value ->> 'run', n.value ->> 'kind', (SELECT last FROM outbox_version) + n.key + 1,
       n.value ->> 'epoch', n.value ->> 'pool',
       CASE WHEN micros(n.value ->> 'due_at') > ?2 THEN micros(n.value ->> 'due_at')
            ELSE min(coalesce(micros(n.value ->> 'due_at'), ?2),
                     coalesce(max(r.accepted_at, coalesce(r.not_before, r.accepted_at)), ?2)) END,
       r.export
FROM json_each(?1) n
LEFT JOIN runs r ON r.id = n.value ->> 'run' AND n.value ->> 'kind' = 'wake' AND r.state = 'queued'
