-- Add the missing slots of calls that are up, even if the PBX is full.
-- Include: _time _sound
-- KEYS 1 zset slots
-- ARGV call ids
-- Returns how many had no slot.
local now = now_ms()
sound(KEYS[1], 'zset')
local n = 0
for _, id in ipairs(ARGV) do n = n + redis.call('ZADD', KEYS[1], 'NX', now, id) end
return n
