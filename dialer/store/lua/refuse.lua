-- Answer a request that is not dialed. It leaves the list where it waits.
-- KEYS 1 list hand or parked   2 hash call   3 list dead   4 list Response
-- ARGV 1 raw element   2 dead entry ('' for none)   3 Response ('' if no id could be read)
--      4 RPUSH|LPUSH   5 retention, s
-- Returns 'refused' | 'duplicate' (nothing is changed) | 'gone' (no longer in this list).
for i = 3, 4 do redis.call('LLEN', KEYS[i]) end -- lists, or nothing is changed (WRONGTYPE)
if ARGV[3] ~= '' and redis.call('EXISTS', KEYS[2]) == 1 then
  return redis.call('LPOS', KEYS[1], ARGV[1]) and 'duplicate' or 'gone'
end
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then return 'gone' end
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[2], 'state', 'done')
  redis.call('EXPIRE', KEYS[2], ARGV[5])
  redis.call(ARGV[4], KEYS[4], ARGV[3])
end
if ARGV[2] ~= '' then redis.call('RPUSH', KEYS[3], ARGV[2]) end
return 'refused'
