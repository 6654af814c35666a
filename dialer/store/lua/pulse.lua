-- Record the heartbeat of a bridge in many cells, and tell which of them have anything to do.
-- Include: _time _minute _sound
-- KEYS for each cell: 1 zset bridges   2 zset live   3 set trunks with parked requests   4 list hand
--      5 list code hand   6 zset awaiting   7 zset queued   8 list Request
-- ARGV 1 this bridge   2 dead after, ms   3 forgotten after, ms   4 lifetime of the bridges, s
--      5 '1': renew that lifetime   6… for each cell: prefix of request hands, of code hands
-- Returns for each cell {quiet, taking, code, call, live, waiting}, or the error if one of its keys
-- has another type.
--   quiet   1 if it has no call, no parked request, and nothing in this bridge's hands: none of the
--           keys 2 to 7
--   taking  1 if `takeover` has something to do
--   code    ms until the first code is overdue, call: ms since the oldest unclaimed call was last
--           published; -1 if there is none
--   live    number of calls, waiting: number of requests in Multcall's list; 0 if quiet
-- An idle cell costs two commands, if all cells are idle. It changes nothing but the heartbeat; of a
-- cell with calls it keeps the most calls at once of this minute.
local now = now_ms()
local function first(key)
  return tonumber(redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2])
end
local watched = {}
for i = 1, #KEYS do
  if i % 8 > 1 then watched[#watched + 1] = KEYS[i] end
end
local are_all_quiet = redis.pcall('EXISTS', unpack(watched)) == 0
local function pulse(k, a)
  if redis.call('ZADD', KEYS[k], now, ARGV[1]) == 1 or ARGV[5] == '1' then
    redis.call('EXPIRE', KEYS[k], ARGV[4])
  end
  local dead = redis.call('ZRANGEBYSCORE', KEYS[k], '-inf', '(' .. (now - ARGV[2]), 'WITHSCORES')
  local taking = 0
  for i = 1, #dead, 2 do
    if number(dead[i + 1]) < now - ARGV[3]
      or redis.call('EXISTS', ARGV[a] .. dead[i], ARGV[a + 1] .. dead[i]) > 0 then taking = 1 end
  end
  if are_all_quiet or redis.call('EXISTS', unpack(KEYS, k + 1, k + 6)) == 0 then
    return {1, taking, -1, -1, 0, 0}
  end
  local live = redis.call('ZCARD', KEYS[k + 1])
  note_peak(string.match(KEYS[k + 1], '[^:]+$'), live, now)
  local code, call = first(KEYS[k + 5]), first(KEYS[k + 6])
  return {0, taking, code and math.max(0, code - now) or -1, call and math.max(0, now - call) or -1,
    live, redis.call('LLEN', KEYS[k + 7])}
end
local out = {}
for i = 1, #KEYS / 8 do
  local ok, found = pcall(pulse, 8 * i - 7, 2 * i + 4)
  if not ok then
    found = type(found) == 'table' and found.err or tostring(found)
    if not string.find(found, 'WRONGTYPE', 1, true) then return redis.error_reply(found) end
  end
  out[i] = found
end
return out
