-- KEYS the keys, ARGV[1] the lease in milliseconds, ARGV[2] and on the claims' values.
-- Answers 1 for each key that is still held by its claim, else 0.
local ours = {}
for i, key in ipairs(KEYS) do
  ours[i] = 0
  if redis.call('GET', key) == ARGV[i + 1] then
    ours[i] = redis.call('PEXPIRE', key, ARGV[1])
  end
end
return ours
