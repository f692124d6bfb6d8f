-- Takes notices that are due (now: ?1), oldest first, until ?2, at most ?3.
UPDATE outbox SET taken_until = ?2
WHERE version IN (
    SELECT version FROM outbox
    WHERE sent_at IS NULL AND kind LIKE 'notice-%' AND due_at <= ?1
      AND (taken_until IS NULL OR taken_until < ?1)
    ORDER BY due_at LIMIT ?3)
RETURNING version, kind, epoch, tries, run
