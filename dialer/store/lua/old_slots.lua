-- Find the calls of one cell whose slot of a PBX is old.
-- Include: _time _sound
-- KEYS for each PBX: zset slots
-- ARGV 1 minimum age of the slot, ms   2 prefix of the cell's call ids
-- Returns for each PBX a list of call ids.
local now = now_ms()
local out = {}
for k, slots in ipairs(KEYS) do
  out[k] = {}
  sound(slots, 'zset')
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', slots, '-inf', now - ARGV[1])) do
    if string.sub(id, 1, #ARGV[2]) == ARGV[2] then out[k][#out[k] + 1] = id end
  end
end
return out
