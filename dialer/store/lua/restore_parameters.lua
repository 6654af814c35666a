-- Restore live parameters that Redis has lost, from the memory of a bridge or worker.
-- Include: _sound _version
-- KEYS 1 hash parameters   2 stream changes
-- ARGV 1 mark of the last change that is remembered   2 its version   3 token of this restoration
--      4… field, time of its change, ms, its text
-- Returns 1; or 0 if Redis has lost nothing: nothing is changed then. Of each value the later change
-- stays. The version becomes a new one, so that all read the parameters again.
sound(KEYS[1], 'hash')
if not has_lost(KEYS[1], KEYS[2], ARGV[1]) then return 0 end
local is_changed = false
for i = 4, #ARGV, 3 do
  local stored = redis.call('HGET', KEYS[1], ARGV[i])
  local at_ms = stored and number(string.match(stored, '^%d+ (%d+) ')) or 0
  if at_ms < tonumber(ARGV[i + 1]) then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
    is_changed = true
  end
end
if not is_changed then return 0 end
local version = math.max(version_of(KEYS[1], KEYS[2]), tonumber(ARGV[2])) + 1
redis.call('HSET', KEYS[1], 'version', version,
  'mark', string.format('%.0f %s', version, ARGV[3]))
return 1
