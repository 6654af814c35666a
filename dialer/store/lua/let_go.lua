-- Return the lease of a PBX; another worker can take it at once.
-- Include: _sound
-- KEYS 1 hash heartbeat
-- ARGV 1 name of the worker
-- Changes nothing if another worker has it. Returns nothing.
sound(KEYS[1], 'hash')
if redis.call('HGET', KEYS[1], 'holder') == ARGV[1] then
  redis.call('HSET', KEYS[1], 'holder', '')
end
