-- Move an unusable element from its list to the dead list.
-- Include: _list _dead
-- KEYS 1 list hand or parked   2 list dead   3 string dropped
-- ARGV 1 raw element   2 dead entry
-- Returns how many old entries the dead list dropped, or -1 if the element is not in its list.
must_be_list(KEYS[2])
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then return -1 end
return push_dead(KEYS[2], KEYS[3], ARGV[2])
