-- Locks the runs that are named, and every edition of every key that is, in the order of their
-- names. Read in a statement of its own afterwards, so that what is read is what is locked.
SELECT id FROM runs WHERE id = ANY ($1) OR key = ANY ($2) ORDER BY id FOR UPDATE
