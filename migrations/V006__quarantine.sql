-- Refused rows: what became of those that a run has kept, unless they are still there (`dropped` by
-- somebody, or `expired`), and, of a run that delivers such rows, which they are.
ALTER TABLE runs ADD COLUMN kept text;
ALTER TABLE runs ADD COLUMN supplements json;
CREATE INDEX runs_quarantine ON runs (accepted_at DESC) WHERE quarantine IS NOT NULL;
