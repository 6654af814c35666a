-- Record what a bridge did with the requests of cells lately, and which limits bound them.
-- Include: _time
-- KEYS for each cell: 1 zset bridges   2 hash took   3 zset decisions
-- ARGV 1 this bridge   2 lifetime of 2, s   3 a bridge is alive for, ms   4 entries go back, ms
--      5 most entries   6 lifetime of 3, s   7… for each cell: what the bridge did as JSON, '' for
--      nothing; number of entries; for each entry: time, ms; limit; the decision as JSON
-- Of several bridges the first one that lives keeps the log. An entry is added if its limit is not
-- that of the last one, so a repeat changes nothing.
-- Returns for each cell 1 if this bridge keeps its log, else 0.
local now = now_ms()
local function keeps_log(bridges)
  local alive = redis.call('ZRANGEBYSCORE', bridges, now - ARGV[3], '+inf')
  for _, name in ipairs(alive) do
    if name < ARGV[1] then return false end
  end
  return true
end
local function trim(key)
  local since = now - ARGV[4]
  local old = redis.call('ZCOUNT', key, '-inf', since)
  local surplus = math.max(old - 1, redis.call('ZCARD', key) - ARGV[5])  -- the newest old one holds
  if surplus > 0 then
    local last = redis.call('ZRANGE', key, surplus - 1, surplus - 1, 'WITHSCORES')[2]
    redis.call('ZREMRANGEBYSCORE', key, '-inf', last)
  end
end
local out, a = {}, 7
for k = 1, #KEYS, 3 do
  local took, entries = ARGV[a], tonumber(ARGV[a + 1])
  a = a + 2
  if took == '' then
    redis.call('HDEL', KEYS[k + 1], ARGV[1])
  else
    redis.call('HSET', KEYS[k + 1], ARGV[1], took)
    redis.call('EXPIRE', KEYS[k + 1], ARGV[2])
  end
  local keeps = keeps_log(KEYS[k])
  for i = 1, entries do
    local at, limit, text = ARGV[a], ARGV[a + 1], ARGV[a + 2]
    a = a + 3
    local last = redis.call('ZRANGE', KEYS[k + 2], -1, -1)[1]
    if keeps and (not last or string.match(last, '^%d+ (%S+)') ~= limit) then
      redis.call('ZADD', KEYS[k + 2], at, at .. ' ' .. limit .. ' ' .. text)
      redis.call('EXPIRE', KEYS[k + 2], ARGV[6])
    end
  end
  if keeps and entries > 0 then trim(KEYS[k + 2]) end
  out[#out + 1] = keeps and 1 or 0
end
return out
