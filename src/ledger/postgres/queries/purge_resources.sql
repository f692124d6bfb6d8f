DELETE FROM resources s
WHERE s.name = ANY ($1)
  AND NOT EXISTS (SELECT 1 FROM holdings h WHERE h.resource = s.name)
  AND NOT EXISTS (SELECT 1 FROM waiters w WHERE w.resource = s.name)
