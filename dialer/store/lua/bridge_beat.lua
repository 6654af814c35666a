-- Record what a bridge says of itself, for the monitor.
-- Include: _time
-- KEYS 1 hash bridge
-- ARGV 1 lifetime, s   2… field, value, …
-- Returns nothing.
redis.call('HSET', KEYS[1], 'seen_ms', now_ms(), unpack(ARGV, 2))
redis.call('EXPIRE', KEYS[1], ARGV[1])
