-- Asterisk took the Originate: the ACK goes out and the code is awaited.
-- KEYS 1 hash call   2 zset awaiting   3 string CounterACK   4 list ACK
-- ARGV 1 call id   2 legal states, each between blanks   3 ACK   4 RPUSH|LPUSH   5 now, ms (wire)
--      6 uniqueid   7 attempts   8 wait for the code, ms
-- Returns 'accepted' | 'already' | 'refused'.
local f = redis.call('HMGET', KEYS[1], 'state', 'code_state', 'uniqueid')
if not f[1] or not string.find(ARGV[2], ' ' .. f[1] .. ' ', 1, true) then
  return f[3] and 'already' or 'refused'
end
redis.call('LLEN', KEYS[4]) -- is a list, or the step stops here (WRONGTYPE) and changes nothing
redis.call('HSET', KEYS[1], 'state', 'accepted', 'accepted_ms', ARGV[5], 'uniqueid', ARGV[6],
  'attempts', ARGV[7])
if f[2] ~= 'came' then
  local t = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'code_state', 'awaited')
  redis.call('ZADD', KEYS[2], t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[8], ARGV[1])
  redis.call('SET', KEYS[3], redis.call('ZCARD', KEYS[2]))
end
redis.call(ARGV[4], KEYS[4], ARGV[3])
return 'accepted'
