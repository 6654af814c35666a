-- Read the state of PBXs.
-- KEYS for each PBX: 1 hash heartbeat   2 zset slots   3 string pace
-- Returns the time now, µs; then for each PBX: seen_ms, link, instance, ready_ms, lacking, slots
-- leased, time of the next start, µs (0 if any). dialer/domain/room.py computes the room.
local t = redis.call('TIME')
local out = {string.format('%.0f', t[1] * 1000000 + t[2])}
for i = 1, #KEYS, 3 do
  local f = redis.call('HMGET', KEYS[i], 'seen_ms', 'link', 'instance', 'ready_ms', 'lacking')
  for k = 1, 5 do out[#out + 1] = f[k] or '' end
  out[#out + 1] = redis.call('ZCARD', KEYS[i + 1])
  out[#out + 1] = redis.call('GET', KEYS[i + 2]) or '0'
end
return out
