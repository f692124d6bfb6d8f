INSERT INTO attempts (run, fence, epoch, worker)
SELECT run, fence, epoch, worker
FROM json_to_recordset($1) AS n (run uuid, fence bigint, epoch int, worker text)
