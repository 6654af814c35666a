-- List the calls that have held a slot of a PBX for some time.
-- Include: _time
-- KEYS 1 zset slots
-- ARGV 1 for how long, ms
-- Returns call ids.
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms() - ARGV[1])
