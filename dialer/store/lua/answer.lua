-- The customer answered.
-- KEYS 1 hash call
-- ARGV 1 legal states, each between blanks   2 now, ms (wire)
-- Returns 1 if it was noted.
local state = redis.call('HGET', KEYS[1], 'state')
if not state or not string.find(ARGV[1], ' ' .. state .. ' ', 1, true) then return 0 end
redis.call('HSET', KEYS[1], 'state', 'answered', 'answered_ms', ARGV[2])
return 1
