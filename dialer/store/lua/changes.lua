-- Read the audit trail of live parameters, the newest change first.
-- KEYS 1 stream changes
-- ARGV 1 greatest id, '+' for all   2 least id, '-' for all   3 how many
-- Returns for each change its id and its fields; nothing of a key of another type.
local found = redis.pcall('XREVRANGE', KEYS[1], ARGV[1], ARGV[2], 'COUNT', ARGV[3])
return found.err and {} or found
