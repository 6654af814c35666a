-- Put a call whose entry cannot be used on the dead list, once.
-- KEYS 1 hash call   2 list dead
-- ARGV 1 dead entry
-- Returns 1 if it was put there now.
redis.call('LLEN', KEYS[2]) -- a list, or nothing is changed (WRONGTYPE)
if redis.call('EXISTS', KEYS[1]) == 0 or redis.call('HSETNX', KEYS[1], 'buried', 1) == 0 then
  return 0
end
redis.call('RPUSH', KEYS[2], ARGV[1])
return 1
