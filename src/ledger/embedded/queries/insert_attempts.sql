INSERT INTO attempts (run, fence, epoch, worker, opened_at)
SELECT value ->> 'run', value ->> 'fence', value ->> 'epoch', value ->> 'worker', ?2
FROM json_each(?1)
