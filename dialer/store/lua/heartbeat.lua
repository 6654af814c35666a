-- Record the heartbeat of a worker and the state of its AMI link. It also renews the worker's lease.
-- Include: _time
-- KEYS 1 hash heartbeat
-- ARGV 1 instance   2 'up'|'down'|'stopping'   3 lifetime, s   4 name of the worker, '' without a
--      lease   5 its fencing number   6… field, value, …
-- Returns the time now, ms, and the fencing number. The number is 0 if another worker has the lease:
-- nothing is written then. A registry that lost its data gets the lease back with the heartbeat.
local now = now_ms()
local f = redis.call('HMGET', KEYS[1], 'holder', 'fence', 'ready_ms')
local is_stopping = ARGV[2] == 'stopping'
if ARGV[4] ~= '' then
  local is_mine = f[1] == ARGV[4] or (not f[1] and not is_stopping)
  if not is_mine then return {now, 0} end
  redis.call('HSET', KEYS[1], 'holder', ARGV[4], 'fence', ARGV[5])
end
redis.call('HSET', KEYS[1], 'instance', ARGV[1], 'link', ARGV[2], 'seen_ms', now)
if ARGV[2] == 'up' or not f[3] then redis.call('HSET', KEYS[1], 'ready_ms', now) end
for i = 6, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return {now, tonumber(ARGV[5]) or 0}
