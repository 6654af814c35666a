-- Record what a bridge did with the requests of cells lately, and which limits bind them.
-- Include: _time
-- KEYS 1 zset loggers; then for each cell: 1 zset bridges   2 hash took   3 zset decisions
-- ARGV 1 this bridge   2 lifetime of `took`, s   3 a bridge that did nothing for so long is dead, ms
--      4 entries go back, ms   5 most entries   6 lifetime of loggers and decisions, s
--      7 '1': look whether nobody kept the logs for a while   8, 9 limit and text of such a gap
--      10 '1': this is the last step; its time is noted in the loggers
--      11… for each cell: what the bridge did as JSON, '' for nothing; limit that binds, '' for none
--      to record; the decision as JSON
-- Of the living bridges of a cell that keep logs, the first one keeps that of the cell. An entry is
-- added if its limit is not that of the newest, so a repeat changes nothing; its time is now.
-- Returns for each cell 1 if the log is right now, 0 if another bridge keeps it, or the error.
-- Redis without memory refuses a script's writes until the script has deleted something, so it writes
-- first: else a log that has nothing new would look kept while nothing is dialed.
redis.call('ZADD', KEYS[1], 'NX', 0, ARGV[1])
local now = now_ms()
local function is_past(score) return score <= now + 2000 end  -- a little ahead: its clock was set back
local function alive(score)
  score = tonumber(score or '')
  return score and is_past(score) and now - score <= tonumber(ARGV[3])
end
local function last_kept(bridges)
  local last = 0
  for _, name in ipairs(redis.call('ZRANGE', bridges, 0, -1)) do
    local score = tonumber(redis.call('ZSCORE', KEYS[1], name) or 0)
    if is_past(score) then last = math.max(last, score) end
  end
  return last
end
local function keeps_log(bridges)
  for _, name in ipairs(redis.call('ZRANGE', bridges, 0, -1)) do
    if name < ARGV[1] and alive(redis.call('ZSCORE', bridges, name))
      and alive(redis.call('ZSCORE', KEYS[1], name)) then return false end
  end
  return true
end
local function add(key, at, limit, text)
  local newest = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')
  if newest[1] and string.match(newest[1], '^%d+ (%S+)') == limit then return end
  at = string.format('%.0f', math.max(at, tonumber(newest[2] or 0) + 1))  -- no two at one time
  redis.call('ZADD', key, at, at .. ' ' .. limit .. ' ' .. text)
end
local function trim(key)
  local old = redis.call('ZCOUNT', key, '-inf', now - ARGV[4])
  local surplus = math.max(old - 1, redis.call('ZCARD', key) - ARGV[5])  -- the newest old one holds
  if surplus > 0 then
    local last = redis.call('ZRANGE', key, surplus - 1, surplus - 1, 'WITHSCORES')[2]
    redis.call('ZREMRANGEBYSCORE', key, '-inf', last)
  end
end
local function record(k, took, limit, text)
  if took == '' then
    redis.call('HDEL', KEYS[k + 1], ARGV[1])
  else
    redis.call('HSET', KEYS[k + 1], ARGV[1], took)
    redis.call('EXPIRE', KEYS[k + 1], ARGV[2])
  end
  if not keeps_log(KEYS[k]) then return 0 end
  local key = KEYS[k + 2]
  redis.call('ZREMRANGEBYSCORE', key, '(' .. (now + 2000), '+inf')  -- the clock was set back
  if ARGV[7] == '1' then
    local kept = last_kept(KEYS[k])
    if kept > 0 and kept < now - ARGV[3] then add(key, kept, ARGV[8], ARGV[9]) end
  end
  if limit ~= '' then add(key, now, limit, text) end
  trim(key)
  redis.call('EXPIRE', key, ARGV[6])
  return 1
end
local out, a = {}, 11
for k = 2, #KEYS, 3 do
  local ok, found = pcall(record, k, ARGV[a], ARGV[a + 1], ARGV[a + 2])
  if not ok then found = type(found) == 'table' and found.err or tostring(found) end
  out[#out + 1] = found
  a = a + 3
end
if ARGV[10] == '1' then redis.call('ZADD', KEYS[1], now, ARGV[1]) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[6])
return out
