-- A message that is due again after $3 seconds. It has no run: its row has a name of its own ($1).
INSERT INTO outbox (run, kind, epoch, pool, due_at, message)
VALUES ($1, 'job', 0, $2, clock_timestamp() + make_interval(secs => $3), $4)
