UPDATE attempts a
SET ended_at = clock_timestamp(), outcome = n.outcome, class = n.class, message = n.message
FROM json_to_recordset($1)
     AS n (run uuid, fence bigint, outcome text, class text, message text)
WHERE a.run = n.run AND a.fence = n.fence AND a.ended_at IS NULL
