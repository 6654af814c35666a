-- Lease slots and starts on a PBX for calls, in order, as many as it has room and pace for.
-- Enforces what dialer/domain/room.py decides (PbxLoad.room, Pace, recent_starts) and
-- dialer/domain/taking.py (Verdict.is_trial_due): a PBX that takes no calls gets one trial call.
-- The governor of the PBX's worker may lower the pace (PbxLimits.pace_at), and limit
-- trunks (trunk_pace). A call whose trunk may not start it yet ends the lease.
-- Include: _sound _governed
-- KEYS 1 zset slots   2 string pace (time of the next start, µs)   3 hash heartbeat
--      4 hash verdict   5 hash starts
-- ARGV 1 max_calls   2 µs between starts   3 burst, starts   4 a start counts for, µs
--      5 lifetime of the starts, s   6 pause after a failed trial, ms   7 a trial is lost after, ms
--      8… call id, its trunk ('' if no trunk's limit counts), …
-- Returns how many of the ids have a slot now, then the ids that had none before.
-- A call that already has a slot keeps it and its start.
for i, kind in ipairs({'zset', 'string', 'hash', 'hash', 'hash'}) do sound(KEYS[i], kind) end
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local now_ms = math.floor(now / 1000)
local limits = governed(KEYS[3])
local gap, burst = slowed(tonumber(ARGV[2]), tonumber(ARGV[3]), limits.limit)
-- At most one start ahead, even if the clock was set back.
local due = math.min(number(redis.call('GET', KEYS[2])), now + gap)
due = math.max(due, now - gap * (burst - 1))
local used = redis.call('ZCARD', KEYS[1])
local most = tonumber(ARGV[1])
local cap = number(redis.call('HGET', KEYS[3], 'cap'))
if cap > 0 then most = math.min(most, cap) end
local verdict = redis.call('HMGET', KEYS[4], 'reason', 'instance', 'trial', 'trial_ms')
local is_held = verdict[1] and verdict[2] == redis.call('HGET', KEYS[3], 'instance')
local trials = 0
if is_held then
  local pause = (verdict[3] or '') ~= '' and ARGV[7] or ARGV[6]
  if now_ms - number(verdict[4]) >= tonumber(pause) then trials = 1 end
end
local granted = 0
local new = {}
local trunks = {}  -- limited trunks: µs between starts, and the next start
for i = 8, #ARGV, 2 do
  if not redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    if used >= most or due > now or (is_held and trials == 0) then break end
    local trunk = trunks[ARGV[i + 1]] or trunk_of(limits, ARGV[i + 1], KEYS[5], now)
    if trunk.due > now then break end
    if trunk.gap > 0 then
      trunks[ARGV[i + 1]] = trunk
      trunk.due = trunk.due + trunk.gap
    end
    redis.call('ZADD', KEYS[1], now_ms, ARGV[i])
    if is_held then
      trials = 0
      redis.call('HSET', KEYS[4], 'trial', ARGV[i], 'trial_ms', now_ms)
    end
    used = used + 1
    due = due + gap
    new[#new + 1] = ARGV[i]
  end
  granted = granted + 1
end
if due > now - gap * (burst - 1) then
  redis.call('SET', KEYS[2], string.format('%.0f', due), 'PX',
    math.max(1, math.ceil((due - now) / 1000) + 1000))
end
if #new > 0 then
  local f = redis.call('HMGET', KEYS[5], 'n', 'at_us')
  local age = math.max(0, f[2] and now - number(f[2]) or 0)
  local n = number(f[1]) * math.exp(-age / ARGV[4]) + #new
  redis.call('HSET', KEYS[5], 'n', string.format('%.6f', n), 'at_us', string.format('%.0f', now))
  for name, trunk in pairs(trunks) do
    redis.call('HSET', KEYS[5], 'trunk:' .. name, string.format('%.0f', trunk.due))
  end
  redis.call('EXPIRE', KEYS[5], ARGV[5])
end
return {granted, unpack(new)}
