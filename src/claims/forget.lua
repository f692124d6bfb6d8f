-- KEYS[1] the key. A living claim on it stays.
local value = redis.call('GET', KEYS[1])
if value and string.sub(value, 1, 2) == 'd:' then
  redis.call('DEL', KEYS[1])
end
return 1
