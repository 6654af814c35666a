-- Takes elements from Multcall's list into a bridge's hand, as many as the cell has room for.
-- KEYS 1 list  Multcall's Request or CODLIGACAO   2 list  the bridge's hand
--      3 zset  live calls   4 zset  bridges
-- ARGV 1 how many the hand may hold   2 'LEFT'|'RIGHT' the head   3 room of the cell, -1 for no
--      limit   4 prefix of every bridge's hand   5 this bridge   6 lifetime of the bridges, s
-- Returns the room that is left (-1 for no limit), then all that is in the hand, so that nothing
-- stays there unseen where a reply was lost. A bridge that was held for dead and forgotten is
-- known again, so that what it takes can be taken over.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if redis.call('ZADD', KEYS[4], 'NX', now, ARGV[5]) == 1 then
  redis.call('EXPIRE', KEYS[4], ARGV[6])
end
local n = ARGV[1] - redis.call('LLEN', KEYS[2])
local room = tonumber(ARGV[3])
if room >= 0 then
  room = room - redis.call('ZCARD', KEYS[3])
  for _, bridge in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do
    room = room - redis.call('LLEN', ARGV[4] .. bridge)
  end
  room = math.max(room, 0)
  n = math.min(n, room)
end
local taken = 0
while taken < n do
  if not redis.call('LMOVE', KEYS[1], KEYS[2], ARGV[2], 'RIGHT') then break end
  taken = taken + 1
end
if room >= 0 then room = room - taken end
local reply = redis.call('LRANGE', KEYS[2], 0, -1)
table.insert(reply, 1, room)
return reply
