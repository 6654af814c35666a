-- Send an element of the dead list again, corrected, under a new id. It leaves the dead list last: if
-- Redis refuses a command in between, it is still there.
-- Include: _list
-- KEYS 1 list dead   2 list Request   3 hash call of the new id   4 string replaced by the new id
--      5 list trail
-- ARGV 1 entry of the dead list   2 element   3 RPUSH|LPUSH   4 who sent it, and what it replaces, as
--      JSON   5 what is noted in the trail   6 entries of the trail   7 lifetime of 4 and 5, s
-- Returns 'sent' | 'gone' (somebody sent or discarded it) | 'used' (there is a call of the new id). A
-- repeat (its reply was lost) returns 'sent' again.
for _, i in ipairs({1, 2, 5}) do must_be_list(KEYS[i]) end
local before = redis.call('GET', KEYS[4])
if before then return before == ARGV[4] and 'sent' or 'used' end
if redis.call('EXISTS', KEYS[3]) == 1 then return 'used' end
if not redis.call('LPOS', KEYS[1], ARGV[1]) then return 'gone' end
redis.call('SET', KEYS[4], ARGV[4], 'EX', ARGV[7])
redis.call('LPUSH', KEYS[5], ARGV[5])
redis.call('LTRIM', KEYS[5], 0, ARGV[6] - 1)
redis.call('EXPIRE', KEYS[5], ARGV[7])
redis.call(ARGV[3], KEYS[2], ARGV[2])
redis.call('LREM', KEYS[1], 1, ARGV[1])
return 'sent'
