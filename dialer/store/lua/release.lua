-- Release the slots of calls on a PBX.
-- KEYS 1 zset slots
-- ARGV call ids
-- Returns how many slots were released.
local n = 0
for _, id in ipairs(ARGV) do n = n + redis.call('ZREM', KEYS[1], id) end
return n
