-- admit(keys, request, threads, now, lease, trunk): admit one request. Remove it from its list.
-- Enforces what dialer/domain/room.py decides (CellRoom.to_admit).
--   keys     {list hand or parked, hash call, zset live, zset queued, zset calls to this number}
--   request  {raw element, call id, pbx, valid until, ms ('': always), valid for, ms from now ('' if
--            the one before is given), token of this admission, the element as the ledger keeps it,
--            most calls to a number (0 for no limit), window of that limit, ms}
--   threads  of the cell    now  ms    lease, trunk  see _lease; nil if the call has its slot
-- A repeat with the same token (the reply was lost) succeeds again. The request leaves its list last:
-- if Redis refuses a command in between, it is not lost.
-- Returns 'admitted' | 'duplicate' | 'full' | 'number_limit' | 'no_slot' | 'gone' (no longer in this
-- list). Only 'admitted' changes anything; the caller sets Counter.
local function admit(keys, request, threads, now, lease, trunk)
  local list, call, live, queued, calls = unpack(keys)
  local raw, id, pbx, expires, valid_ms, token, stored, most, window = unpack(request)
  if redis.call('EXISTS', call) == 1 then
    if redis.call('HGET', call, 'admission') == token then return 'admitted' end
    return redis.call('LPOS', list, raw) and 'duplicate' or 'gone'
  end
  if redis.call('ZCARD', live) >= tonumber(threads) then return 'full' end
  most = tonumber(most)
  if most > 0 then
    redis.call('ZREMRANGEBYSCORE', calls, '-inf', now - tonumber(window))
    if redis.call('ZCARD', calls) >= most then return 'number_limit' end
  end
  local is_new = lease and not lease.has_slot(id)
  if is_new and not lease.has_room(trunk) then return 'no_slot' end
  if not redis.call('LPOS', list, raw) then return 'gone' end
  if is_new then lease.take(id, trunk) end
  if valid_ms ~= '' then expires = string.format('%d', now + tonumber(valid_ms)) end
  redis.call('ZADD', queued, now, id)
  redis.call('HSET', call, 'state', 'queued', 'epoch', 1, 'pbx', pbx, 'request', stored,
    'admitted_ms', now, 'expires_ms', expires, 'code_state', 'none', 'admission', token)
  redis.call('ZADD', live, now, id)
  if most > 0 then
    redis.call('ZADD', calls, now, id)
    redis.call('PEXPIRE', calls, window)
  end
  redis.call('LREM', list, 1, raw)
  return 'admitted'
end
