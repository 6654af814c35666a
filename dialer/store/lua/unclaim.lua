-- Give a claimed call back. The caller is sure that nothing of it was sent to Asterisk.
-- Include: _state _sound _fence
-- KEYS 1 hash call   2 zset queued   3 set claimed at this PBX   4 string fence
-- ARGV 1 call id   2 legal states, each between blanks   3 claim token
--      4 fencing number   5 lifetime of the fence, s
-- Returns 1 if it was given back, 0 if it was not claimed with this token.
local error = fenced(KEYS[4], ARGV[4], ARGV[5])
if error then return error end
local f = redis.call('HMGET', KEYS[1], 'state', 'token')
if not is_legal(f[1], ARGV[2]) or f[2] ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], 'state', 'admitted')
redis.call('HDEL', KEYS[1], 'pbx', 'dialed_ms', 'boot', 'token', 'attempts')
redis.call('SREM', KEYS[3], ARGV[1])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
return 1
