-- Read the live parameters.
-- Include: _sound _version
-- KEYS 1 hash parameters   2 stream changes
-- ARGV 1 mark of the last change that the caller knows, '' for none
-- Returns the version; 1 if Redis has lost the change with that mark, else 0; then field, value, …
-- of the hash, nothing of a key of another type.
local found = redis.pcall('HGETALL', KEYS[1])
if found.err then found = {} end
table.insert(found, 1, has_lost(KEYS[1], KEYS[2], ARGV[1]) and 1 or 0)
table.insert(found, 1, string.format('%.0f', version_of(KEYS[1], KEYS[2])))
return found
