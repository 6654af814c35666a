-- Takes elements from Multcall's list into a bridge's hand, as many as the cell has room for.
-- KEYS 1 list  Multcall's Request or CODLIGACAO   2 list  the bridge's hand
--      3 zset  live calls   4 zset  bridges
-- ARGV 1 at most   2 'LEFT'|'RIGHT' the head   3 room of the cell, -1 for no limit
--      4 prefix of every bridge's hand
-- Returns the elements taken.
local n = tonumber(ARGV[1])
local room = tonumber(ARGV[3])
if room >= 0 then
  room = room - redis.call('ZCARD', KEYS[3])
  for _, bridge in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do
    room = room - redis.call('LLEN', ARGV[4] .. bridge)
  end
  n = math.min(n, room)
end
local taken = {}
while #taken < n do
  local element = redis.call('LMOVE', KEYS[1], KEYS[2], ARGV[2], 'RIGHT')
  if not element then break end
  taken[#taken + 1] = element
end
return taken
