-- Record the heartbeat of a worker and the state of its AMI link. It also renews the worker's lease.
-- Include: _time _sound
-- KEYS 1 hash heartbeat
-- ARGV 1 instance   2 'up'|'down'|'stopping'   3 lifetime, s   4 name of the worker, '' without a
--      lease   5 its fencing number   6… field, value, …
-- Returns the time now, ms, and the fencing number. The number is 0 if a newer worker has taken the
-- lease: nothing is written then. The greatest number wins, so a registry that lost its last writes
-- gets the lease back with the heartbeat.
local now = now_ms()
sound(KEYS[1], 'hash')
local f = redis.call('HMGET', KEYS[1], 'fence', 'ready_ms')
if ARGV[4] ~= '' then
  if tonumber(ARGV[5]) < number(f[1]) then return {now, 0} end
  redis.call('HSET', KEYS[1], 'holder', ARGV[4], 'fence', ARGV[5])
end
redis.call('HSET', KEYS[1], 'instance', ARGV[1], 'link', ARGV[2], 'seen_ms', now)
if ARGV[2] == 'up' or not f[2] then redis.call('HSET', KEYS[1], 'ready_ms', now) end
for i = 6, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return {now, tonumber(ARGV[5])}
