-- What takes no turns and is due (now: ?1), oldest first, at most ?2.
SELECT version, due_at FROM outbox
WHERE sent_at IS NULL AND export IS NULL AND kind NOT LIKE 'notice-%' AND due_at <= ?1
  AND (taken_until IS NULL OR taken_until < ?1)
ORDER BY due_at LIMIT ?2
