-- Put parked requests of a removed cell back into Multcall's list, unless another bridge serves it.
-- Include: _time
-- KEYS 1 zset bridges   2 list Request   3 set trunks with parked requests
-- ARGV 1 this bridge   2 'LEFT'|'RIGHT' the head of Multcall's list   3 a bridge is dead after, ms
--      4 prefix of every parked list   5 most requests to move
-- Returns how many went back. The newest of a trunk go first, so that its oldest end at the head.
for _, bridge in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], now_ms() - ARGV[3], '+inf')) do
  if bridge ~= ARGV[1] then return 0 end
end
local n = 0
for _, trunk in ipairs(redis.call('SMEMBERS', KEYS[3])) do
  local parked = ARGV[4] .. trunk
  while n < tonumber(ARGV[5]) and redis.call('LMOVE', parked, KEYS[2], 'RIGHT', ARGV[2]) do
    n = n + 1
  end
  if redis.call('EXISTS', parked) == 0 then redis.call('SREM', KEYS[3], trunk) end
end
return n
