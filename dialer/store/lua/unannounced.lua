-- Find calls queued to a PBX of which no message came. Several cells of one server in one step.
-- Include: _time
-- KEYS for each cell: zset queued
-- ARGV 1 pbx   2 last published so long ago, ms   3 prefix of a call's key   4 at most, all cells
--      5 at most so many calls are looked at in each cell
-- Returns id, epoch, id, epoch, … It changes nothing. A cell whose key has another type has none.
local before, out = now_ms() - ARGV[2], {}
-- If nothing is queued, one command shows it. Lua cannot unpack more than a few thousand keys.
if #KEYS <= 1000 and redis.pcall('EXISTS', unpack(KEYS)) == 0 then return out end
for _, queued in ipairs(KEYS) do
  local ids = redis.pcall('ZRANGEBYSCORE', queued, '-inf', string.format('%d', before),
    'LIMIT', 0, ARGV[5])
  for _, id in ipairs(ids) do
    if #out >= 2 * ARGV[4] then return out end
    local f = redis.pcall('HMGET', ARGV[3] .. id, 'state', 'pbx', 'epoch')
    if f[1] == 'queued' and f[2] == ARGV[1] then
      out[#out + 1] = id
      out[#out + 1] = f[3]
    end
  end
end
return out
