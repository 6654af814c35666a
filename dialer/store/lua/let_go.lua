-- Return the lease of a PBX; another worker can take it at once.
-- Include: _sound
-- KEYS 1 hash heartbeat
-- ARGV 1 name of the worker
-- Returns 1, or 0 if another worker has it.
sound(KEYS[1], 'hash')
if redis.call('HGET', KEYS[1], 'holder') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'holder', '')
return 1
