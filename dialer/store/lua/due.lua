-- Waiting calls that were not published for a while; each is marked as published now.
-- KEYS 1 zset queued
-- ARGV 1 older than, ms   2 prefix of a call's key   3 at most
--      4 only those queued to this PBX ('' for any)
-- Returns id, state, epoch, pbx, id, state, …
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local out = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1], 'LIMIT', 0, ARGV[3])) do
  local f = redis.call('HMGET', ARGV[2] .. id, 'state', 'epoch', 'pbx')
  if not f[1] then
    redis.call('ZREM', KEYS[1], id)
  elseif ARGV[4] == '' or f[3] == ARGV[4] then
    if f[1] == 'queued' then redis.call('ZADD', KEYS[1], now, id) end
    for _, v in ipairs({id, f[1], f[2], f[3] or ''}) do out[#out + 1] = v end
  end
end
return out
