-- Gives calls that are up the slots of their PBX that were lost, whether there is room or not.
-- KEYS 1 zset slots
-- ARGV call ids
-- Returns how many held none.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local n = 0
for _, id in ipairs(ARGV) do n = n + redis.call('ZADD', KEYS[1], 'NX', now, id) end
return n
