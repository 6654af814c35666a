-- End a call. Send its Response now; if its code is awaited, the Response follows later.
-- Include: _time _list _state _finish _sound _fence
-- KEYS 1 hash call   2 zset live   3 zset queued   4 set claimed at its PBX
--      5 string Counter   6 list Response   7 string fence, for a worker
-- ARGV 1 call id   2 legal states, each between blanks   3 expected epoch
--      4 Response before the code   5 Response after the code   6 Resultado
--      7 RPUSH|LPUSH   8 retention, s   9 Erro.Codigo or ''   10 fencing number
--      11 lifetime of the fence, s, for a worker
-- Returns 'done' | 'ended' (the code is awaited) | 'void' (the call was over, or has changed).
local error = fenced(KEYS[7], ARGV[10], ARGV[11])
if error then return error end
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
