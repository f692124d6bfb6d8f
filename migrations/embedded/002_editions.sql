-- Why a window stands among those without a run: `catch-up` left it out, or its run's history is
-- deleted, and this is the state that it ended in.
ALTER TABLE skipped ADD COLUMN why TEXT NOT NULL DEFAULT 'catch-up';

-- The slot of the backfill that a run belongs to.
ALTER TABLE runs ADD COLUMN cap TEXT;
