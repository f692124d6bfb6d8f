-- A posting takes the place of an earlier one of its run and kind, under a new version.
INSERT OR REPLACE INTO outbox (run, kind, version, epoch, pool, due_at)
SELECT value ->> 'run', value ->> 'kind', (SELECT last FROM outbox_version) + key + 1,
       value ->> 'epoch', value ->> 'pool', coalesce(micros(value ->> 'due_at'), ?2)
FROM json_each(?1)
