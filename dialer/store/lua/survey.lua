-- Read what is to be shown of many cells. Read-only.
-- Include: _time
-- KEYS for each cell: 1 list Request   2 list ACK   3 list CODLIGACAO   4 list Response
--      5 string Counter   6 string CounterACK   7 zset live   8 zset queued   9 zset awaiting
--      10 list dead   11 string dropped   12 set trunks with parked requests   13 zset bridges
--      14 hash took   15 zset decisions   16 hash operators of Multcall   17… for each PBX: set claimed, string worker; then for each
--      minute: hash of its outcomes
-- ARGV 1 prefix of calls   2 an unclaimed call is late after, ms   3 an unanswered one after, ms
--      4 most late calls to look at   5 most claimed calls of a PBX to look at; then for each cell:
--      number of PBXs, number of minutes, prefixes of its parked lists and of its hands
-- Returns the time now, ms; then for each cell a list, or why it cannot be read:
--   {sizes of 1 to 4, values of 5 and 6}, {sizes of 7, 8, 9 and 10, value of 11}, {trunk, parked, …},
--   {bridge, seen_ms, …}, took, last decision or '', {pbx, ms since when a late call is queued, …},
--   for each PBX {worker or '', number of unanswered calls, ms since when the oldest was dialed},
--   for each minute {name, value, …}, number of requests in hands, {operator, JSON, …} or
--   why these cannot be read
local now = now_ms()
local function value(key) return redis.call('GET', key) or '0' end
local function late_calls(queued)
  local out = {}
  local found = redis.call('ZRANGEBYSCORE', queued, 1, now - ARGV[2], 'WITHSCORES', 'LIMIT', 0, ARGV[4])
  for i = 1, #found, 2 do
    local pbx = redis.pcall('HGET', ARGV[1] .. found[i], 'pbx')
    if type(pbx) == 'string' then
      out[#out + 1] = pbx
      out[#out + 1] = found[i + 1]
    end
  end
  return out
end
local function of_pbx(claimed, worker)
  local n, oldest = 0, now
  for _, id in ipairs(redis.call('SRANDMEMBER', claimed, ARGV[5])) do
    local f = redis.pcall('HMGET', ARGV[1] .. id, 'state', 'dialed_ms')
    local dialed = not f.err and f[1] == 'originating' and tonumber(f[2] or '')
    if dialed and dialed <= now - ARGV[3] then
      n, oldest = n + 1, math.min(oldest, dialed)
    end
  end
  return {redis.call('GET', worker) or '', n, string.format('%.0f', oldest)}
end
local function parked(parking, prefix)
  local out = {}
  for _, trunk in ipairs(redis.call('SMEMBERS', parking)) do
    out[#out + 1] = trunk
    out[#out + 1] = redis.call('LLEN', prefix .. trunk)
  end
  return out
end
local function in_hands(bridges, prefix)
  local n = 0
  for i = 1, #bridges, 2 do n = n + redis.call('LLEN', prefix .. bridges[i]) end
  return n
end
local function survey(k, pbxs, minutes, prefix, hands)
  local lists, sizes, of_pbxs, outcomes = {}, {}, {}, {}
  for i = 0, 3 do lists[i + 1] = redis.call('LLEN', KEYS[k + i]) end
  for i = 4, 5 do lists[i + 1] = value(KEYS[k + i]) end
  for i = 6, 8 do sizes[i - 5] = redis.call('ZCARD', KEYS[k + i]) end
  sizes[4], sizes[5] = redis.call('LLEN', KEYS[k + 9]), value(KEYS[k + 10])
  local operators = redis.pcall('HGETALL', KEYS[k + 15])
  if operators.err then operators = operators.err end
  local last = k + 16
  for i = 1, pbxs do
    of_pbxs[i] = of_pbx(KEYS[last], KEYS[last + 1])
    last = last + 2
  end
  for i = 1, minutes do outcomes[i] = redis.call('HGETALL', KEYS[last + i - 1]) end
  local bridges = redis.call('ZRANGE', KEYS[k + 12], 0, -1, 'WITHSCORES')
  return {lists, sizes, parked(KEYS[k + 11], prefix), bridges, redis.call('HGETALL', KEYS[k + 13]),
    redis.call('ZRANGE', KEYS[k + 14], -1, -1)[1] or '', late_calls(KEYS[k + 7]), of_pbxs, outcomes,
    in_hands(bridges, hands), operators}
end
local out, k = {string.format('%.0f', now)}, 1
for a = 6, #ARGV, 4 do
  local pbxs, minutes = tonumber(ARGV[a]), tonumber(ARGV[a + 1])
  local ok, found = pcall(survey, k, pbxs, minutes, ARGV[a + 2], ARGV[a + 3])
  if not ok then found = type(found) == 'table' and found.err or tostring(found) end
  out[#out + 1] = found
  k = k + 16 + 2 * pbxs + minutes
end
return out
