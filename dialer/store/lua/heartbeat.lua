-- Record the heartbeat of a worker and the state of its AMI link.
-- Include: _time
-- KEYS 1 hash heartbeat
-- ARGV 1 instance   2 'up'|'down'|'stopping'   3 lifetime, s   4… field, value, …
-- Returns 1, or 0 if another worker has replaced this one, which stops: nothing is written then.
if ARGV[2] == 'stopping' and redis.call('HGET', KEYS[1], 'instance') ~= ARGV[1] then return 0 end
local now = now_ms()
redis.call('HSET', KEYS[1], 'instance', ARGV[1], 'link', ARGV[2], 'seen_ms', now)
if ARGV[2] == 'up' or redis.call('HEXISTS', KEYS[1], 'ready_ms') == 0 then
  redis.call('HSET', KEYS[1], 'ready_ms', now)
end
for i = 4, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
