-- Read a trail, the newest entry first: that of live parameters, of deeds or of failed sign-ins.
-- KEYS 1 stream changes, deeds or failures
-- ARGV 1 greatest id, '+' for all   2 least id, '-' for all   3 how many
-- Returns for each entry its id and its fields; nothing of a key of another type.
local kind = redis.pcall('TYPE', KEYS[1]).ok  -- nil for a user without that right
if kind and kind ~= 'stream' then return {} end
return redis.call('XREVRANGE', KEYS[1], ARGV[1], ARGV[2], 'COUNT', ARGV[3])
