-- List the cells without a bridge that have calls, elements in a hand or parked requests. Delete
-- the settings of cells without a bridge that have none of them.
-- Include: _time
-- KEYS 1 hash cells
-- ARGV 1 a bridge is dead after, ms
--      prefixes of keys: 2 bridges   3 live calls   4 request hands   5 code hands   6 parked requests
-- Returns cell, settings, cell, settings, …
local dead = now_ms() - ARGV[1]
local out = {}
local cells = redis.call('HGETALL', KEYS[1])
for i = 1, #cells, 2 do
  local cell = cells[i]
  local bridges = ARGV[2] .. cell
  if redis.call('ZCOUNT', bridges, dead, '+inf') == 0 then
    local n = redis.call('ZCARD', ARGV[3] .. cell) + redis.call('SCARD', ARGV[6] .. cell)
    for _, bridge in ipairs(redis.call('ZRANGE', bridges, 0, -1)) do
      for k = 4, 5 do n = n + redis.call('LLEN', ARGV[k] .. cell .. ':' .. bridge) end
    end
    if n > 0 then
      out[#out + 1] = cell
      out[#out + 1] = cells[i + 1]
    else
      redis.call('HDEL', KEYS[1], cell)
    end
  end
end
return out
