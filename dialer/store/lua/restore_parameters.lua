-- Restore live parameters that Redis has lost, from the memory of a bridge or worker.
-- Include: _sound _version
-- KEYS 1 hash parameters   2 stream changes
-- ARGV 1 version that is remembered   2… field, time of its change, ms, its text
-- Returns 1; or 0 if Redis has that version or a later one: nothing is changed then. A value that
-- was set after the loss stays.
sound(KEYS[1], 'hash')
if version_of(KEYS[1], KEYS[2]) >= tonumber(ARGV[1]) then return 0 end
for i = 2, #ARGV, 3 do
  local stored = redis.call('HGET', KEYS[1], ARGV[i])
  local at_ms = stored and number(string.match(stored, '^%d+ (%d+) ')) or 0
  if at_ms < tonumber(ARGV[i + 1]) then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2]) end
end
redis.call('HSET', KEYS[1], 'version', ARGV[1] + 1)  -- so that all read them again
return 1
