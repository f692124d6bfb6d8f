-- Attempts and deliveries are stored with the run's row, in one transaction, and deleted with it. That
-- the server looked for the run of each, and locked it, took as long as writing them.
-- In the order in which everybody locks them.
LOCK TABLE runs, attempts, deliveries IN ACCESS EXCLUSIVE MODE;
ALTER TABLE attempts DROP CONSTRAINT attempts_run_fkey;
ALTER TABLE deliveries DROP CONSTRAINT deliveries_run_fkey;
