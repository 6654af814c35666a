-- Find the cells whose calls have slots of PBXs.
-- Include: _sound
-- KEYS for each PBX: zset slots
-- Returns the names of the cells: what stands before the first colon of a call id.
local seen, out = {}, {}
for _, slots in ipairs(KEYS) do
  sound(slots, 'zset')
  for _, id in ipairs(redis.call('ZRANGE', slots, 0, -1)) do
    local cell = string.match(id, '^[^:]*')
    if not seen[cell] then
      seen[cell] = true
      out[#out + 1] = cell
    end
  end
end
return out
