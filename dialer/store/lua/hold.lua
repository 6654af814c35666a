-- Give a worker the lease of its PBX, unless another worker has it and lives.
-- Include: _time _sound
-- KEYS 1 hash heartbeat
-- ARGV 1 name of the worker   2 host   3 pid   4 place, see workers/pbx/lease.py
--      5 name of a worker that is known to be dead, or ''   6 a silent worker is dead after, ms
--      7 the fencing number must be greater than this   8 lifetime, s
-- Returns the time now, ms, and the fencing number. If another worker has the lease, 0 for the number,
-- then its name, host, pid, place, link, asterisk and seen_ms; this worker is noted as its rival.
local now = now_ms()
sound(KEYS[1], 'hash')
local f = redis.call('HMGET', KEYS[1], 'holder', 'host', 'pid', 'place', 'link', 'asterisk',
  'seen_ms', 'fence')
local holder = f[1] or ''
local is_mine = holder == ARGV[1]
local is_free = holder == '' or is_mine or holder == ARGV[5]
  or now - number(f[7]) >= tonumber(ARGV[6])
if not is_free then
  redis.call('HSET', KEYS[1], 'rival', 'pid ' .. ARGV[3] .. ' on host ' .. ARGV[2], 'rival_ms', now)
  local out = {now, 0}
  for i = 1, 7 do out[#out + 1] = f[i] or '' end
  return out
end
local old, above = number(f[8]), tonumber(ARGV[7])
if is_mine and old > above then return {now, old} end  -- the reply was lost
local number = math.max(old + 1, above + 1, now)
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'host', ARGV[2], 'pid', ARGV[3], 'place', ARGV[4],
  'fence', string.format('%d', number), 'seen_ms', now, 'link', 'down')
redis.call('HDEL', KEYS[1], 'rival', 'rival_ms')
redis.call('EXPIRE', KEYS[1], ARGV[8])
return {now, number}
