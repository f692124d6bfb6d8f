-- KEYS[1] a key of its own. Writing proves more than PING: no replica, no full memory, allowed.
redis.call('SET', KEYS[1], '', 'PX', 1000)
return 1
