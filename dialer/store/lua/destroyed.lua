-- Find calls whose entry lost its state or epoch, is gone, or is of another type.
-- Include: _state
-- KEYS 1… hash call
-- ARGV 1 all states, each between blanks
-- Returns the places in KEYS of those calls, from 1.
local found = {}
for i, key in ipairs(KEYS) do
  local f = redis.pcall('HMGET', key, 'state', 'epoch')
  if f.err or not is_whole(f[1], f[2], ARGV[1]) then found[#found + 1] = i end
end
return found
