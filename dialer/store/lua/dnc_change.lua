-- Add numbers to the do-not-call set, or remove them.
-- KEYS 1 set of numbers   2 string reply to this change
-- ARGV 1 'SADD'|'SREM'   2 lifetime of the reply, s   3… numbers, at most `DNC_BATCH`
-- Returns how many were added or removed. A repeat of the same change (its reply was lost) returns
-- the same number, which is stored in the second key.
local before = redis.call('GET', KEYS[2])
if before then return tonumber(before) end
local n = redis.call(ARGV[1], KEYS[1], unpack(ARGV, 3))
redis.call('SET', KEYS[2], n, 'EX', ARGV[2])
return n
