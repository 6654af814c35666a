-- Admit one request: ledger entry, slot of the cell, Counter. Remove it from its list.
-- Enforces what dialer/domain/room.py decides (CellRoom.to_admit).
-- Include: _time
-- KEYS 1 list hand or parked   2 hash call   3 zset live   4 zset queued   5 string Counter
--      6 zset calls to this number
-- ARGV 1 raw element   2 call id   3 threads of the cell   4 pbx   5 valid until, ms ('': always)
--      6 most calls to a number, 0 for no limit   7 window of that limit, ms
--      8 valid for, ms from now ('' if 5 is given)   9 token of this admission
--      10 the element as the ledger keeps it
-- A repeat with the same token (the reply was lost) succeeds again.
-- Returns 'admitted' | 'duplicate' | 'full' | 'number_limit' | 'gone' (no longer in this list).
-- Only 'admitted' changes anything.
local call = KEYS[2]
if redis.call('EXISTS', call) == 1 then
  if redis.call('HGET', call, 'admission') == ARGV[9] then return 'admitted' end
  return redis.call('LPOS', KEYS[1], ARGV[1]) and 'duplicate' or 'gone'
end
if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[3]) then return 'full' end
local now = now_ms()
local most = tonumber(ARGV[6])
if most > 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', now - tonumber(ARGV[7]))
  if redis.call('ZCARD', KEYS[6]) >= most then return 'number_limit' end
end
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then return 'gone' end
if most > 0 then
  redis.call('ZADD', KEYS[6], now, ARGV[2])
  redis.call('PEXPIRE', KEYS[6], ARGV[7])
end
local expires = ARGV[5]
if ARGV[8] ~= '' then expires = string.format('%d', now + tonumber(ARGV[8])) end
redis.call('HSET', call, 'state', 'queued', 'epoch', 1, 'pbx', ARGV[4], 'request', ARGV[10],
  'admitted_ms', now, 'expires_ms', expires, 'code_state', 'none', 'admission', ARGV[9])
redis.call('ZADD', KEYS[3], now, ARGV[2])
redis.call('ZADD', KEYS[4], now, ARGV[2])
redis.call('SET', KEYS[5], redis.call('ZCARD', KEYS[3]))
return 'admitted'
