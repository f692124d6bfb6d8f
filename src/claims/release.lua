-- KEYS[1] the key, ARGV[1] the claim's value.
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1])
end
return 1
