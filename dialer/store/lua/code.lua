-- Multcall's number for a call came. It leaves the bridge's hand; an ended call is answered now.
-- Include: _time _list _finish
-- KEYS 1 list code hand   2 hash call   3 zset live   4 zset awaiting
--      5 string Counter   6 string CounterACK   7 list Response   8 list dead
-- ARGV 1 raw element   2 call id   3 the code, JSON   4 dead entry: orphan
--      5 dead entry: second code   6 RPUSH|LPUSH   7 retention, s
--      8 legal states, each between blanks
-- Returns 'stored' | 'done' (the Response went out) | 'orphan' | 'second' | 'gone'.
must_be_list(KEYS[7])
must_be_list(KEYS[8])
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then return 'gone' end
local f = redis.call('HMGET', KEYS[2], 'state', 'code_state')
if not f[1] or not string.find(ARGV[8], ' ' .. f[1] .. ' ', 1, true) then
  redis.call('RPUSH', KEYS[8], ARGV[4])
  return 'orphan'
end
if f[2] == 'came' then
  redis.call('RPUSH', KEYS[8], ARGV[5])
  return 'second'
end
redis.call('HSET', KEYS[2], 'code', ARGV[3], 'code_state', 'came')
redis.call('ZREM', KEYS[4], ARGV[2])
redis.call('SET', KEYS[6], redis.call('ZCARD', KEYS[4]))
if f[1] ~= 'ended' then return 'stored' end
finish(KEYS[2], KEYS[3], KEYS[5], KEYS[7], ARGV[2], ARGV[6], ARGV[7])
return 'done'
