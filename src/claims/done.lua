-- KEYS[1] the key, ARGV[1] the done-mark, ARGV[2] how long to keep it, in milliseconds.
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
