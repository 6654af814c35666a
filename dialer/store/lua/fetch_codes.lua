-- Move codes from Multcall's list to a bridge's hand.
-- Include: _time
-- KEYS 1 list CODLIGACAO   2 list the bridge's hand of codes   3 zset bridges
-- ARGV 1 how many elements the hand may have   2 'LEFT'|'RIGHT' the head   3 this bridge
--      4 lifetime of the bridges, s
-- Returns the whole hand, so that the next reply also has what a lost reply had. A bridge that was
-- considered dead and forgotten is registered again, so that another bridge can take over its hand.
local now = now_ms()
if redis.call('ZADD', KEYS[3], 'NX', now, ARGV[3]) == 1 then
  redis.call('EXPIRE', KEYS[3], ARGV[4])
end
for _ = 1, ARGV[1] - redis.call('LLEN', KEYS[2]) do
  if not redis.call('LMOVE', KEYS[1], KEYS[2], ARGV[2], 'RIGHT') then break end
end
return redis.call('LRANGE', KEYS[2], 0, -1)
