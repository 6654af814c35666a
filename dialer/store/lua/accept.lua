-- Asterisk accepted the Originate: send the ACK, count it, and wait for the call's code.
-- Include: _time _minute _list _state _sound _fence
-- KEYS 1 hash call   2 zset awaiting   3 string CounterACK   4 list ACK   5 string fence
-- ARGV 1 call id   2 legal states, each between blanks   3 ACK   4 RPUSH|LPUSH   5 now, ms (wire)
--      6 uniqueid   7 attempts   8 timeout of the code, ms
--      9 fencing number   10 lifetime of the fence, s
-- Returns 'accepted' | 'already' (a repeat) | 'refused' (the call is over).
local error = fenced(KEYS[5], ARGV[9], ARGV[10])
if error then return error end
local f = redis.call('HMGET', KEYS[1], 'state', 'code_state', 'uniqueid', 'admitted_ms')
if not is_legal(f[1], ARGV[2]) then return f[3] and 'already' or 'refused' end
must_be_list(KEYS[4])
local now = now_ms()
redis.call('HSET', KEYS[1], 'state', 'accepted', 'accepted_ms', ARGV[5], 'uniqueid', ARGV[6],
  'attempts', ARGV[7])
if f[2] ~= 'came' then
  redis.call('HSET', KEYS[1], 'code_state', 'awaited')
  redis.call('ZADD', KEYS[2], now + ARGV[8], ARGV[1])
  redis.call('SET', KEYS[3], redis.call('ZCARD', KEYS[2]))
end
redis.call(ARGV[4], KEYS[4], ARGV[3])
count_ack(KEYS[1], f[4], now)
return 'accepted'
