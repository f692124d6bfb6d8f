-- Wake-ups of queued runs take turns: so many of each export and pool are on their way at once, by
-- the weight of the export. Of those alone the outbox has the export. Waiters have theirs, since
-- those that wait for a slot of a connection are ahead of what comes later, too.
-- In this order: whoever writes runs reads the definitions first, then the waiters, and posts last.
ALTER TABLE active_definitions ADD COLUMN weight integer NOT NULL DEFAULT 1;
ALTER TABLE waiters ADD COLUMN export text;
ALTER TABLE outbox ADD COLUMN export text;
-- Of the kind `job`: a producer's message that no worker could read yet, to be published as it came.
ALTER TABLE outbox ADD COLUMN message text;
UPDATE waiters w SET export = r.export FROM runs r WHERE r.id = w.run;
UPDATE outbox o SET export = r.export
FROM runs r WHERE r.id = o.run AND o.kind = 'wake' AND r.state = 'queued';
DROP INDEX outbox_due;
CREATE INDEX outbox_due ON outbox (due_at) WHERE sent_at IS NULL AND export IS NULL;
CREATE INDEX outbox_turns ON outbox (pool, export, due_at)
    WHERE sent_at IS NULL AND export IS NOT NULL;
CREATE INDEX outbox_ahead ON outbox (pool, export) WHERE sent_at IS NOT NULL AND export IS NOT NULL;
CREATE INDEX waiters_ahead ON waiters (pool, export)
    WHERE resource LIKE 'slot/%' AND resource NOT LIKE 'slot/backfill/%';
