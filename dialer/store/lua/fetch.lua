-- Move requests from Multcall's list to a bridge's hand, as many as the cell has room for.
-- Enforces what dialer/domain/room.py decides (Room.to_fetch).
-- Include: _time
-- KEYS 1 list Request   2 list the bridge's hand   3 zset live calls   4 zset bridges
--      5 set trunks with parked requests   6 zset unclaimed calls
-- ARGV 1 how many elements the hand may have   2 'LEFT'|'RIGHT' the head   3 threads of the cell
--      4 prefix of every bridge's hand   5 this bridge   6 lifetime of the bridges, s
--      7 prefix of every parked list   8 prefix of a call's key   9 most unclaimed calls to look at
-- Returns how many calls are live; how many requests are in all hands; the whole hand, so that the
-- next reply also has what a lost reply had; trunk, number of parked requests, trunk, …; the PBX
-- of each of the oldest calls that no worker has claimed.
-- A bridge that was considered dead and forgotten is registered again, so that another bridge can
-- take over its hand.
local now = now_ms()
if redis.call('ZADD', KEYS[4], 'NX', now, ARGV[5]) == 1 then
  redis.call('EXPIRE', KEYS[4], ARGV[6])
end
local live = redis.call('ZCARD', KEYS[3])
local in_hand = 0
for _, bridge in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do
  in_hand = in_hand + redis.call('LLEN', ARGV[4] .. bridge)
end
local n = math.min(ARGV[1] - redis.call('LLEN', KEYS[2]), ARGV[3] - live - in_hand)
for _ = 1, n do
  if not redis.call('LMOVE', KEYS[1], KEYS[2], ARGV[2], 'RIGHT') then break end
  in_hand = in_hand + 1
end
local parked = {}
for _, trunk in ipairs(redis.call('SMEMBERS', KEYS[5])) do
  local waiting = redis.call('LLEN', ARGV[7] .. trunk)
  if waiting == 0 then
    redis.call('SREM', KEYS[5], trunk)
  else
    parked[#parked + 1] = trunk
    parked[#parked + 1] = waiting
  end
end
local unclaimed = {}
if tonumber(ARGV[9]) > 0 then
  for _, id in ipairs(redis.call('ZRANGE', KEYS[6], 0, ARGV[9] - 1)) do
    local pbx = redis.pcall('HGET', ARGV[8] .. id, 'pbx')
    if type(pbx) == 'string' then unclaimed[#unclaimed + 1] = pbx end
  end
end
return {live, in_hand, redis.call('LRANGE', KEYS[2], 0, -1), parked, unclaimed}
