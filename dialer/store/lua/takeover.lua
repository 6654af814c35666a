-- Record the heartbeat of a bridge, and move the hands of dead bridges to it.
-- Include: _time
-- KEYS 1 zset bridges
-- ARGV 1 this bridge   2 dead after, ms   3 prefix of request hands   4 prefix of code hands
--      5 lifetime of the key, s   6 forgotten after, ms
-- Returns dead bridge, elements taken over, dead bridge, … of those that had any. A dead bridge
-- stays registered for a while, because it may only have been slow.
local now = now_ms()
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[5])
local out = {}
for _, bridge in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. (now - ARGV[2]))) do
  local n = 0
  for i = 3, 4 do
    while redis.call('LMOVE', ARGV[i] .. bridge, ARGV[i] .. ARGV[1], 'LEFT', 'RIGHT') do n = n + 1 end
  end
  if n > 0 then
    out[#out + 1] = bridge
    out[#out + 1] = n
  end
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. (now - ARGV[6]))
return out
