-- The calls that have held a slot of a PBX for long.
-- KEYS 1 zset slots
-- ARGV 1 for how long, ms
-- Returns call ids.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1])
