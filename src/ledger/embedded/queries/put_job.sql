-- A message that is due again at ?3. It has no run: its row has a name of its own (?1).
INSERT INTO outbox (run, kind, version, epoch, pool, due_at, message)
VALUES (?1, 'job', (SELECT last FROM outbox_version) + 1, 0, ?2, ?3, ?4)
