-- Put a call with an unreadable entry on the dead list, once.
-- Include: _list _dead
-- KEYS 1 hash call   2 list dead   3 string dropped
-- ARGV 1 dead entry
-- Returns how many old entries the dead list dropped.
must_be_list(KEYS[2])
if redis.call('EXISTS', KEYS[1]) == 0 or redis.call('HSETNX', KEYS[1], 'buried', 1) == 0 then
  return 0
end
return push_dead(KEYS[2], KEYS[3], ARGV[1])
