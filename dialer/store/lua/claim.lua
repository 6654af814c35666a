-- Claim a queued call for a worker, before anything is sent to Asterisk. No other may dial it.
-- Include: _state _sound _fence
-- KEYS 1 hash call   2 zset queued   3 set claimed at this PBX   4 string fence
-- ARGV 1 call id   2 legal states, each between blanks   3 pbx   4 epoch   5 now, ms (wire)
--      6 boot of the Asterisk   7 claim token   8 fencing number   9 lifetime of the fence, s
-- Returns the whole entry, or an empty list if the task is void. A repeat with the same
-- token (the reply was lost) succeeds again. Error FENCED: a newer worker serves this PBX.
local error = fenced(KEYS[4], ARGV[8], ARGV[9])
if error then return error end
local f = redis.call('HMGET', KEYS[1], 'state', 'pbx', 'epoch', 'token')
local is_repeat = f[1] == 'originating' and f[4] == ARGV[7]
if not is_repeat then
  if not is_legal(f[1], ARGV[2]) or f[2] ~= ARGV[3] or f[3] ~= ARGV[4] then return {} end
  -- The state last: if Redis refuses one of these keys, the call stays queued.
  redis.call('SADD', KEYS[3], ARGV[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('HSET', KEYS[1], 'state', 'originating', 'dialed_ms', ARGV[5], 'boot', ARGV[6],
    'token', ARGV[7], 'attempts', 1)
end
return redis.call('HGETALL', KEYS[1])
