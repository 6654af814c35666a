-- What the registry knows of some PBXs.
-- KEYS for each PBX: 1 hash heartbeat   2 zset slots   3 string pace
-- ARGV for each PBX: µs between starts, burst
-- Returns for each PBX: seen_ms, link, instance, ready_ms, lacking, slots used, starts allowed now;
-- first of all the time now, ms.
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local out = {math.floor(now / 1000)}
for i = 1, #KEYS, 3 do
  local j = (i - 1) / 3 * 2 + 1
  local gap, burst = tonumber(ARGV[j]), tonumber(ARGV[j + 1])
  -- Never more than one start ahead, even where the clock was set back.
  local due = math.min(tonumber(redis.call('GET', KEYS[i + 2]) or '0'), now + gap)
  due = math.max(due, now - gap * (burst - 1))
  local starts = due > now and 0 or math.floor((now - due) / gap) + 1
  local f = redis.call('HMGET', KEYS[i], 'seen_ms', 'link', 'instance', 'ready_ms', 'lacking')
  for k = 1, 5 do out[#out + 1] = f[k] or '' end
  out[#out + 1] = redis.call('ZCARD', KEYS[i + 1])
  out[#out + 1] = starts
end
return out
