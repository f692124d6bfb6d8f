INSERT OR REPLACE INTO waiters (run, resource, since, pool, epoch, export)
SELECT value ->> 'run', value ->> 'resource', micros(value ->> 'since'), value ->> 'pool',
       value ->> 'epoch', (SELECT export FROM runs WHERE id = value ->> 'run')
FROM json_each(?1)
