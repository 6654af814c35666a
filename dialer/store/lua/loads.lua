-- Read the state of PBXs.
-- KEYS for each PBX: 1 hash heartbeat   2 zset slots   3 string pace   4 hash starts   5 hash verdict
-- Returns the time now, µs; then for each PBX a list: heartbeat {seen_ms, link, instance, ready_ms,
-- lacking, trouble, skew_ms, cap, results, governor, limits, rival, rival_ms, agents}; slots leased;
-- time of the latest start, µs (0 if any); starts {n, at_us}; verdict {reason, instance, since_ms, trial,
-- trial_ms, trials, lifted}; all fields of the starts, `trunk:<name>` for the time of the latest
-- start over a limited trunk, µs. What is missing, or in a key of another type, is '' or 0.
-- dialer/domain/room.py computes the room.
local function fields(key, ...)
  local found = redis.pcall('HMGET', key, ...)
  if found.err then found = {} end
  for i = 1, select('#', ...) do found[i] = found[i] or '' end
  return found
end
local function value(command, key)
  local found = redis.pcall(command, key)
  return type(found) ~= 'table' and found or 0
end
local function all(key)
  local found = redis.pcall('HGETALL', key)
  return found.err and {} or found
end
local t = redis.call('TIME')
local out = {string.format('%.0f', t[1] * 1000000 + t[2])}
for i = 1, #KEYS, 5 do
  out[#out + 1] = {
    fields(KEYS[i], 'seen_ms', 'link', 'instance', 'ready_ms', 'lacking', 'trouble', 'skew_ms',
      'cap', 'results', 'governor', 'limits', 'rival', 'rival_ms', 'agents'),
    value('ZCARD', KEYS[i + 1]),
    value('GET', KEYS[i + 2]),
    fields(KEYS[i + 3], 'n', 'at_us'),
    fields(KEYS[i + 4], 'reason', 'instance', 'since_ms', 'trial', 'trial_ms', 'trials', 'lifted'),
    all(KEYS[i + 3]),
  }
end
return out
