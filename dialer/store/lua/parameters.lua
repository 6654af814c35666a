-- Read the live parameters.
-- Include: _sound _version
-- KEYS 1 hash parameters   2 stream changes
-- Returns the version; then field, value, … of the hash, nothing of a key of another type.
local found = redis.pcall('HGETALL', KEYS[1])
if found.err then found = {} end
table.insert(found, 1, string.format('%.0f', version_of(KEYS[1], KEYS[2])))
return found
