-- Queues a waiting call to a PBX under a new epoch.
-- KEYS 1 hash call   2 zset queued
-- ARGV 1 call id   2 legal states, each between blanks   3 epoch it must have   4 pbx
-- Returns the call's epoch now, or 0 where it went on meanwhile. Where it was just placed there
-- (the reply was lost, or another bridge did the same), that is its epoch.
local f = redis.call('HMGET', KEYS[1], 'state', 'epoch', 'pbx')
if f[1] == 'queued' and f[3] == ARGV[4] and tonumber(f[2]) == ARGV[3] + 1 then
  return tonumber(f[2])
end
if not f[1] or not string.find(ARGV[2], ' ' .. f[1] .. ' ', 1, true) or f[2] ~= ARGV[3] then
  return 0
end
local t = redis.call('TIME')
redis.call('HSET', KEYS[1], 'state', 'queued', 'pbx', ARGV[4])
redis.call('ZADD', KEYS[2], t[1] * 1000 + math.floor(t[2] / 1000), ARGV[1])
return redis.call('HINCRBY', KEYS[1], 'epoch', 1)
