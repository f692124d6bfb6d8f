-- What is held back now. The locks keep a pause from being lifted until whoever is parked on it is
-- in its list, where lifting looks.
SELECT scope, name FROM pauses
WHERE until IS NULL OR until > clock_timestamp()
ORDER BY scope, name
FOR SHARE
