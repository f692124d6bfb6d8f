-- KEYS[1] the key, ARGV[1] the claim's value, ARGV[2] the lease in milliseconds.
-- Answers 'granted', or 'held' and the milliseconds left, or 'done' and the mark.
local value = redis.call('GET', KEYS[1])
if not value or value == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return {'granted', 0, ''}
end
if string.sub(value, 1, 2) == 'd:' then
  return {'done', 0, string.sub(value, 3)}
end
return {'held', redis.call('PTTL', KEYS[1]), ''}
