-- Change live parameters, and record the change in the audit trail.
-- Include: _time _sound _version
-- KEYS 1 hash parameters   2 stream changes
-- ARGV 1 token of this change   2 version that the change was made for   3 changes to keep
--      4 the change as JSON   5… field, JSON of its value or '' for the value of the file. The number
--      of the change is kept for both: `undo` compares it.
-- Returns 1 and the new version; or 0 and the version, if another change came first: nothing is
-- changed then. A repeat of the same change (its reply was lost) returns the version that it made.
sound(KEYS[1], 'hash')
sound(KEYS[2], 'stream')
local version = version_of(KEYS[1], KEYS[2])
local fresh = tonumber(ARGV[2]) + 1
local id = string.format('%.0f-0', fresh)
if version ~= fresh - 1 then
  local made = redis.call('XRANGE', KEYS[2], id, id)[1]
  if made and made[2][2] == ARGV[1] then return {1, fresh} end
  return {0, version}
end
local now = now_ms()
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], id,
  'token', ARGV[1], 'at_ms', now, 'change', ARGV[4])
for i = 5, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], string.format('%.0f %.0f %s', fresh, now, ARGV[i + 1]))
end
redis.call('HSET', KEYS[1], 'version', fresh, 'mark', string.format('%.0f %s', fresh, ARGV[1]))
return {1, fresh}
