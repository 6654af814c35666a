-- Record that the customer answered.
-- Include: _state _sound _fence
-- KEYS 1 hash call   2 string fence
-- ARGV 1 legal states, each between blanks   2 now, ms (wire)   3 fencing number   4 lifetime of the fence, s
-- Returns 1 if it was recorded, 0 if not.
local error = fenced(KEYS[2], ARGV[3], ARGV[4])
if error then return error end
if not is_legal(redis.call('HGET', KEYS[1], 'state'), ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'state', 'answered', 'answered_ms', ARGV[2])
return 1
