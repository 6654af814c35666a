-- Lease slots and starts on a PBX for calls, in order, as many as it has room and pace for.
-- Enforces what dialer/domain/room.py decides (PbxLoad.room, Pace).
-- KEYS 1 zset slots   2 string pace (time of the next start, µs)
-- ARGV 1 max_calls   2 µs between starts   3 burst, starts   4… call ids
-- Returns how many of the ids have a slot now, then the ids that had none before.
-- A call that already has a slot keeps it and its start.
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local gap = tonumber(ARGV[2])
-- At most one start ahead, even if the clock was set back.
local due = math.min(tonumber(redis.call('GET', KEYS[2]) or '0'), now + gap)
due = math.max(due, now - gap * (ARGV[3] - 1))
local used = redis.call('ZCARD', KEYS[1])
local granted = 0
local new = {}
for i = 4, #ARGV do
  if not redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    if used >= tonumber(ARGV[1]) or due > now then break end
    redis.call('ZADD', KEYS[1], math.floor(now / 1000), ARGV[i])
    used = used + 1
    due = due + gap
    new[#new + 1] = ARGV[i]
  end
  granted = granted + 1
end
if due > now - gap * (ARGV[3] - 1) then
  redis.call('SET', KEYS[2], string.format('%.0f', due), 'PX',
    math.max(1, math.ceil((due - now) / 1000) + 1000))
end
return {granted, unpack(new)}
