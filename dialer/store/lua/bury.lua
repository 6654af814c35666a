-- An element that cannot be read goes from a bridge's hand to the dead list.
-- KEYS 1 list hand   2 list dead
-- ARGV 1 raw element   2 dead entry
-- Returns 1 if it was in the hand.
redis.call('LLEN', KEYS[2]) -- a list, or nothing is changed (WRONGTYPE)
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then return 0 end
redis.call('RPUSH', KEYS[2], ARGV[2])
return 1
