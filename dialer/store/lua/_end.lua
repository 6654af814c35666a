-- end_call(): end a call. Send its Response now; if its code is awaited, the Response follows later.
-- Uses KEYS 1-6 and ARGV 1-9 of the step:
-- KEYS 1 hash call   2 zset live   3 zset queued   4 set claimed at its PBX
--      5 string Counter   6 list Response
-- ARGV 1 call id   2 legal states, each between blanks   3 expected epoch
--      4 Response before the code   5 Response after the code   6 Resultado
--      7 RPUSH|LPUSH   8 retention, s   9 Erro.Codigo or ''
-- Returns 'done' | 'ended' (the code is awaited) | 'void' (the call was over, or has changed).
-- Needs _time, _list, _state, _minute and _finish.
local function end_call()
  local f = redis.call('HMGET', KEYS[1], 'state', 'epoch', 'code_state')
  if not is_legal(f[1], ARGV[2]) or f[2] ~= ARGV[3] then return 'void' end
  must_be_list(KEYS[6])
  redis.call('HSET', KEYS[1], 'state', 'ended', 'head', ARGV[4], 'tail', ARGV[5],
    'result', ARGV[6], 'ended_ms', now_ms(), 'error', ARGV[9])
  redis.call('ZREM', KEYS[3], ARGV[1])
  redis.call('SREM', KEYS[4], ARGV[1])
  if f[3] == 'awaited' then return 'ended' end
  finish(KEYS[1], KEYS[2], KEYS[5], KEYS[6], ARGV[1], ARGV[7], ARGV[8])
  return 'done'
end
