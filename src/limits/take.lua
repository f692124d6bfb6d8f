-- The turn of limits/gcra.rs, by Redis's own clock.
-- KEYS[1] the limit, ARGV[1] the interval and ARGV[2] the tolerance, in microseconds.
-- Answers 0, or the microseconds to wait.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, tolerance = tonumber(ARGV[1]), tonumber(ARGV[2])
local due = tonumber(redis.call('GET', KEYS[1]) or now) or now
due = math.min(math.max(due, now), now + tolerance + interval)
local early = due - tolerance - now
if early > 0 then
  return early
end
local next = due + interval
-- Written with %.0f, since Lua would round a number of this size to 14 digits.
redis.call('SET', KEYS[1], string.format('%.0f', next), 'PX', math.ceil((next - now) / 1000))
return 0
