-- Time out overdue codes. Send the Responses of calls that have ended.
-- Include: _time _list _minute _finish
-- KEYS 1 zset awaiting   2 zset live   3 string Counter   4 string CounterACK   5 list Response
-- ARGV 1 prefix of a call's key   2 RPUSH|LPUSH   3 retention, s   4 at most
-- Returns the ids of the calls.
must_be_list(KEYS[5])
local late = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms(), 'LIMIT', 0, ARGV[4])
for _, id in ipairs(late) do
  local call = ARGV[1] .. id
  redis.call('ZREM', KEYS[1], id)
  local state = redis.call('HGET', call, 'state')
  if state then
    redis.call('HSET', call, 'code_state', 'timed_out')
    if state == 'ended' then
      finish(call, KEYS[2], KEYS[3], KEYS[5], id, ARGV[2], ARGV[3])
    end
  end
end
if #late > 0 then redis.call('SET', KEYS[4], redis.call('ZCARD', KEYS[1])) end
return late
