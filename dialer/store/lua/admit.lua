-- Admits one request: ledger entry, slot on the cell, Counter. It leaves the bridge's hand.
-- Include: _dead
-- KEYS 1 list hand   2 hash call   3 zset live   4 zset queued   5 string Counter
--      6 list dead   7 zset calls to this number   8 string dropped
-- ARGV 1 raw element   2 call id   3 threads of the cell   4 dead entry for a repeat
--      5 pbx   6 valid until, ms ('' for ever)   7 most calls to a number, 0 for no limit
--      8 window of that limit, ms   9 valid for, ms from now ('' where 6 is given)
--      10 token of this admission
-- A repeat of the same admission (the reply was lost) is granted again: the token tells.
-- Returns 'admitted' | 'duplicate' | 'full' | 'number_limit' | 'gone' (not in this hand any more).
local call = KEYS[2]
if redis.call('EXISTS', call) == 1 then
  if redis.call('HGET', call, 'admission') == ARGV[10] then return 'admitted' end
  redis.call('LLEN', KEYS[6]) -- a list, or nothing is changed (WRONGTYPE)
  if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then return 'gone' end
  push_dead(KEYS[6], KEYS[8], ARGV[4])
  return 'duplicate'
end
if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[3]) then return 'full' end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local most = tonumber(ARGV[7])
if most > 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[7], '-inf', now - tonumber(ARGV[8]))
  if redis.call('ZCARD', KEYS[7]) >= most then return 'number_limit' end
end
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then return 'gone' end
if most > 0 then
  redis.call('ZADD', KEYS[7], now, ARGV[2])
  redis.call('PEXPIRE', KEYS[7], ARGV[8])
end
local expires = ARGV[6]
if ARGV[9] ~= '' then expires = string.format('%d', now + tonumber(ARGV[9])) end
redis.call('HSET', call, 'state', 'queued', 'epoch', 1, 'pbx', ARGV[5], 'request', ARGV[1],
  'admitted_ms', now, 'expires_ms', expires, 'code_state', 'none', 'admission', ARGV[10])
redis.call('ZADD', KEYS[3], now, ARGV[2])
redis.call('ZADD', KEYS[4], now, ARGV[2])
redis.call('SET', KEYS[5], redis.call('ZCARD', KEYS[3]))
return 'admitted'
