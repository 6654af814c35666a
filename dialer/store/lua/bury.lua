-- Move an element that cannot be used from the list where it waits to the dead list.
-- Include: _list _dead
-- KEYS 1 list hand or parked   2 list dead   3 string dropped
-- ARGV 1 raw element   2 dead entry
-- Returns how many old entries the dead list dropped, or -1 if the element is gone from it.
must_be_list(KEYS[2])
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then return -1 end
return push_dead(KEYS[2], KEYS[3], ARGV[2])
