SELECT s.name FROM resources s
WHERE NOT EXISTS (SELECT 1 FROM holdings h WHERE h.resource = s.name)
  AND NOT EXISTS (SELECT 1 FROM waiters w WHERE w.resource = s.name)
LIMIT $1
FOR UPDATE SKIP LOCKED
