UPDATE attempts
SET ended_at = ?2, outcome = value ->> 'outcome', class = value ->> 'class',
    message = value ->> 'message'
FROM json_each(?1)
WHERE attempts.run = value ->> 'run' AND attempts.fence = value ->> 'fence'
  AND attempts.ended_at IS NULL
