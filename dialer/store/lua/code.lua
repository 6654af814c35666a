-- Store the code of a call and remove it from the bridge's hand. If the call has ended, send its
-- Response now.
-- Include: _time _list _state _minute _finish
-- KEYS 1 list code hand   2 hash call   3 zset live   4 zset awaiting
--      5 string Counter   6 string CounterACK   7 list Response
-- ARGV 1 raw element   2 call id   3 the code, JSON   4 RPUSH|LPUSH   5 retention, s
--      6 legal states, each between blanks
-- Returns 'stored' | 'done' (the Response was sent) | 'gone' (not in this hand), or, with the
-- code still in the hand, for the caller to bury: 'orphan' (no such call) | 'second' (has a code).
must_be_list(KEYS[7])
local f = redis.call('HMGET', KEYS[2], 'state', 'code_state')
local verdict = not is_legal(f[1], ARGV[6]) and 'orphan' or f[2] == 'came' and 'second'
if verdict then return redis.call('LPOS', KEYS[1], ARGV[1]) and verdict or 'gone' end
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then return 'gone' end
redis.call('HSET', KEYS[2], 'code', ARGV[3], 'code_state', 'came')
redis.call('ZREM', KEYS[4], ARGV[2])
redis.call('SET', KEYS[6], redis.call('ZCARD', KEYS[4]))
if f[1] ~= 'ended' then return 'stored' end
finish(KEYS[2], KEYS[3], KEYS[5], KEYS[7], ARGV[2], ARGV[4], ARGV[5])
return 'done'
