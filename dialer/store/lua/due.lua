-- Find waiting calls whose last publishing is old, and mark each as published now.
-- Include: _time
-- KEYS 1 zset queued
-- ARGV 1 last published before, ms since 1970, or '' to use 2   2 last published so long ago, ms
--      3 prefix of a call's key   4 at most   5 only those queued to this PBX ('' for any)
--      6 a call without a PBX is due again after, ms   7 a call that is left alone, or ''
-- Returns the first argument for the next slice, then id, state, epoch, pbx, id, state, … Calls
-- that the filter excludes do not count towards "at most".
local now = now_ms()
local since = tonumber(ARGV[1]) or now - ARGV[2]
local most, page = tonumber(ARGV[4]), 500
local found, gone, offset = {}, {}, 0
while #found < most do
  local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%d', since),
    'LIMIT', offset, page)
  for _, id in ipairs(ids) do
    local f = redis.pcall('HMGET', ARGV[3] .. id, 'state', 'epoch', 'pbx')
    if not f[1] then
      gone[#gone + 1] = id
    elseif #found < most and id ~= ARGV[7] and (ARGV[5] == '' or f[3] == ARGV[5]) then
      found[#found + 1] = {id, f[1], f[2] or '', f[3] or ''}
    end
  end
  if #ids < page then break end
  offset = offset + page
end
for _, id in ipairs(gone) do redis.call('ZREM', KEYS[1], id) end
local out = {string.format('%d', since)}
for _, call in ipairs(found) do
  -- A call without a PBX is due again soon, but not in this slice.
  local score = call[2] == 'queued' and math.max(now, since + 1) or since + tonumber(ARGV[6])
  redis.call('ZADD', KEYS[1], 'XX', string.format('%d', score), call[1])
  for _, v in ipairs(call) do out[#out + 1] = v end
end
return out
