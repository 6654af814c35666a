-- The worker gives a call back, certain that nothing was sent to Asterisk.
-- KEYS 1 hash call   2 zset queued   3 set claimed at this PBX
-- ARGV 1 call id   2 legal states, each between blanks   3 claim token
-- Returns 1 if it was given back.
local f = redis.call('HMGET', KEYS[1], 'state', 'token')
if not f[1] or not string.find(ARGV[2], ' ' .. f[1] .. ' ', 1, true) or f[2] ~= ARGV[3] then
  return 0
end
redis.call('HSET', KEYS[1], 'state', 'admitted')
redis.call('HDEL', KEYS[1], 'pbx', 'dialed_ms', 'boot', 'token', 'attempts')
redis.call('SREM', KEYS[3], ARGV[1])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
return 1
