-- Each is looked up by its run and fence, and changed where that has found it: a plan that was made while
-- the table was small would else look through all of it for those that have not ended.
UPDATE attempts a
SET ended_at = clock_timestamp(), outcome = n.outcome, class = n.class, message = n.message
FROM json_to_recordset($1)
     AS n (run uuid, fence bigint, outcome text, class text, message text)
CROSS JOIN LATERAL (
    SELECT ctid FROM attempts
    WHERE run = n.run AND fence = n.fence AND ended_at IS NULL
    OFFSET 0
) open
WHERE a.ctid = open.ctid
