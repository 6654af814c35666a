-- Record that a PBX takes no calls although its worker says it is ready.
-- Include: _time _sound
-- KEYS 1 hash verdict   2 hash heartbeat
-- ARGV 1 reason   2 instance of the worker that was judged   3 lifetime, s
-- Returns 1, or 0 if that verdict stands already or the worker was restarted in the meantime.
sound(KEYS[1], 'hash')
sound(KEYS[2], 'hash')
if redis.call('HGET', KEYS[2], 'instance') ~= ARGV[2] then return 0 end
local f = redis.call('HMGET', KEYS[1], 'reason', 'instance')
if f[1] and f[2] == ARGV[2] then return 0 end
local now = now_ms()
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'reason', ARGV[1], 'instance', ARGV[2], 'since_ms', now,
  'trial', '', 'trial_ms', now, 'trials', 0)
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
