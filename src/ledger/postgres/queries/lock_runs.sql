-- Locks the runs that are named, and every edition of every key that is, in the order of their
-- names, and tells which transaction has written each. Read in a statement of its own afterwards, so that
-- what is read is what is locked.
SELECT id, xmin::text FROM runs WHERE id = ANY ($1) OR key = ANY ($2) ORDER BY id FOR UPDATE
