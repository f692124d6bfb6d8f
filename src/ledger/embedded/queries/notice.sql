-- Tells of scheduled runs that have not ended ?2 microseconds after they were accepted or last
-- replayed, and of those that are stuck, now (?1), at most ?3 of each; see the PostgreSQL query of
-- this name.
INSERT OR REPLACE INTO outbox (run, kind, version, epoch, due_at)
SELECT id, kind, (SELECT last FROM outbox_version) + row_number() OVER (), epoch, ?1 FROM (
    SELECT * FROM (
        SELECT r.id, 'notice-late' AS kind, r.epoch FROM runs r
        WHERE r.ended_at IS NULL AND r.requested_by = 'scheduler' AND r.accepted_at < ?1 - ?2
          AND (r.epoch = 0 OR (SELECT max(a.at) FROM audit a
                               WHERE a.subject = r.id AND a.action = 'replay') < ?1 - ?2)
          AND NOT EXISTS (SELECT 1 FROM outbox o
                          WHERE o.run = r.id AND o.kind = 'notice-late' AND o.epoch = r.epoch)
        LIMIT ?3)
    UNION ALL
    SELECT * FROM (
        SELECT r.id, 'notice-stuck', r.epoch FROM runs r
        WHERE r.state IN ('committing', 'closing') AND r.state <> 'done'
          AND r.changed_at < ?1 - 3600000000
          AND NOT EXISTS (SELECT 1 FROM outbox o
                          WHERE o.run = r.id AND o.kind = 'notice-stuck' AND o.epoch = r.epoch)
        LIMIT ?3)
)
