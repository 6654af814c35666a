-- Queue a waiting call to a PBX, under a new epoch.
-- Include: _time _state _sound _fence
-- KEYS 1 hash call   2 zset queued   3 string fence, for a worker
-- ARGV 1 call id   2 legal states, each between blanks   3 expected epoch   4 pbx
--      5 fencing number   6 lifetime of the fence, s, for a worker
-- Returns the new epoch, or 0 if the call has changed in the meantime. If the same PBX was assigned
-- just before (the reply was lost, or another bridge did it), returns that epoch.
local error = fenced(KEYS[3], ARGV[5], ARGV[6])
if error then return error end
local f = redis.call('HMGET', KEYS[1], 'state', 'epoch', 'pbx')
if f[1] == 'queued' and f[3] == ARGV[4] and tonumber(f[2]) == ARGV[3] + 1 then
  return tonumber(f[2])
end
if not is_legal(f[1], ARGV[2]) or f[2] ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], 'state', 'queued', 'pbx', ARGV[4])
redis.call('ZADD', KEYS[2], now_ms(), ARGV[1])
return redis.call('HINCRBY', KEYS[1], 'epoch', 1)
