INSERT OR REPLACE INTO waiters (run, resource, since, pool, epoch)
SELECT value ->> 'run', value ->> 'resource', micros(value ->> 'since'), value ->> 'pool',
       value ->> 'epoch'
FROM json_each(?1)
