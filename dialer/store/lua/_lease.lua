-- lease_of(k, a, now): what one PBX has room and pace for. Needs _sound _governed.
-- Enforces what dialer/domain/room.py decides (PbxLoad.room, Pace, recent_starts) and
-- dialer/domain/taking.py (Verdict.is_trial_due): a PBX that takes no calls gets one trial call.
-- The governor of the PBX's worker may lower the pace (PbxLimits.pace_at), and limit trunks
-- (trunk_pace).
--   now  time now, µs
--   KEYS from k: zset slots   string pace (time of the latest start, µs)   hash heartbeat
--                hash verdict   hash starts
--   ARGV from a: max_calls   µs between starts   burst, starts   a start counts for, µs
--                lifetime of the starts, s   pause after a failed trial, ms   a trial is lost after, ms
--   has_slot(id), has_room(trunk): true if the call has a slot; if one more call over that trunk may
--                have one ('' if no trunk's limit counts)
--   take(id, trunk): lease a slot and a start    close(): write the pace and the starts
local function lease_of(k, a, now)
  for i, kind in ipairs({'zset', 'string', 'hash', 'hash', 'hash'}) do sound(KEYS[k + i - 1], kind) end
  local slots, pace, beat, verdict_key, starts = unpack(KEYS, k, k + 4)
  local now_ms, limits = math.floor(now / 1000), governed(beat)
  local gap, burst = slowed(tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), limits.limit)
  local earliest = now - gap * (burst - 1)
  -- The latest start is kept, not the next one: the pace may change until then.
  local due = next_start(number(redis.call('GET', pace)), now, gap, burst)
  local used, taken = redis.call('ZCARD', slots), 0
  local most, cap = tonumber(ARGV[a]), number(redis.call('HGET', beat, 'cap'))
  if cap > 0 then most = math.min(most, cap) end
  local verdict = redis.call('HMGET', verdict_key, 'reason', 'instance', 'trial', 'trial_ms')
  local is_held = verdict[1] and verdict[2] == redis.call('HGET', beat, 'instance')
  local trials = 0
  if is_held then
    local pause = (verdict[3] or '') ~= '' and ARGV[a + 6] or ARGV[a + 5]
    if now_ms - number(verdict[4]) >= tonumber(pause) then trials = 1 end
  end
  local trunks = {}
  local function way(trunk)
    trunks[trunk] = trunks[trunk] or trunk_of(limits, trunk, starts, now)
    return trunks[trunk]
  end
  local lease = {}
  function lease.has_slot(id) return redis.call('ZSCORE', slots, id) end
  function lease.has_room(trunk)
    local has_slot = used < most and not (is_held and trials == 0)
    return has_slot and due <= now and way(trunk).due <= now
  end
  function lease.take(id, trunk)
    redis.call('ZADD', slots, now_ms, id)
    if is_held then
      trials = 0
      redis.call('HSET', verdict_key, 'trial', id, 'trial_ms', now_ms)
    end
    used, due, taken = used + 1, due + gap, taken + 1
    way(trunk).due = way(trunk).due + way(trunk).gap
    way(trunk).is_taken = way(trunk).gap > 0
  end
  function lease.close()
    if due > earliest then
      redis.call('SET', pace, string.format('%.0f', due - gap), 'PX',
        math.max(1, math.ceil((due - earliest) / 1000) + 1000))  -- all of a burst is earned by then
    end
    if taken == 0 then return end
    local f = redis.call('HMGET', starts, 'n', 'at_us')
    local age = math.max(0, f[2] and now - number(f[2]) or 0)
    local n = number(f[1]) * math.exp(-age / ARGV[a + 3]) + taken
    redis.call('HSET', starts, 'n', string.format('%.6f', n), 'at_us', string.format('%.0f', now))
    for name, trunk in pairs(trunks) do
      if trunk.is_taken then
        redis.call('HSET', starts, 'trunk:' .. name, string.format('%.0f', trunk.due - trunk.gap))
      end
    end
    redis.call('EXPIRE', starts, ARGV[a + 4])
  end
  return lease
end
