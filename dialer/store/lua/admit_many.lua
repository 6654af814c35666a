-- Lease slots and starts on one PBX and admit requests, in order, if registry and ledger are on one
-- server. It is `lease` and `admit` in one: a request that is not admitted leases nothing.
-- Include: _sound _governed _lease _admit
-- KEYS 1…5 of the PBX, see _lease   6 zset live   7 zset queued   8 string Counter
-- ARGV 1…7 of the PBX, see _lease   8 threads of the cell   9 prefix of a call's key
--      then for each request: its list, zset calls to its number, its trunk ('' if no trunk's limit
--      counts), and 9 values, see _admit
-- Returns for each request what `admit` of _admit returns. At the first error, such as a key of
-- another type, it stops and returns the error. The requests before it stay admitted and counted.
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local lease = lease_of(1, 1, now)
local out, failure = {}, nil
for i = 10, #ARGV, 12 do
  local keys = {ARGV[i], ARGV[9] .. ARGV[i + 4], KEYS[6], KEYS[7], ARGV[i + 1]}
  local request = {unpack(ARGV, i + 3, i + 11)}
  local now_ms = math.floor(now / 1000)
  local ok, reply = pcall(admit, keys, request, ARGV[8], now_ms, lease, ARGV[i + 2])
  if not ok then failure = type(reply) == 'table' and reply.err or tostring(reply) break end
  out[#out + 1] = reply
end
lease.close()
redis.call('SET', KEYS[8], redis.call('ZCARD', KEYS[6]))
return failure and redis.error_reply(failure) or out
