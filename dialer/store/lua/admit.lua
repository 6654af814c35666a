-- Admit one request that has its slot: ledger entry, slot of the cell, Counter.
-- Include: _time _admit
-- KEYS 1 list hand or parked   2 hash call   3 zset live   4 zset queued
--      5 zset calls to this number   6 string Counter
-- ARGV 1 threads of the cell   2… the request, see _admit
-- Returns what `admit` of _admit returns, but never 'no_slot'.
local reply = admit(KEYS, {unpack(ARGV, 2)}, ARGV[1], now_ms())
if reply == 'admitted' then redis.call('SET', KEYS[6], redis.call('ZCARD', KEYS[3])) end
return reply
