-- Store the last-used settings of a cell.
-- KEYS 1 hash cells
-- ARGV 1 cell   2 its settings   3 lifetime of the key, s
-- Returns nothing.
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
