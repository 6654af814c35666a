-- Record that the customer answered.
-- Include: _state
-- KEYS 1 hash call
-- ARGV 1 legal states, each between blanks   2 now, ms (wire)
-- Returns 1 if it was recorded, 0 if not.
if not is_legal(redis.call('HGET', KEYS[1], 'state'), ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'state', 'answered', 'answered_ms', ARGV[2])
return 1
