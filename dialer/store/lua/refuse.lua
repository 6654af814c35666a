-- Answers a request that is not dialed. It leaves the bridge's hand.
-- KEYS 1 list hand   2 hash call   3 list dead   4 list Response
-- ARGV 1 raw element   2 dead entry ('' for none)   3 Response ('' where no id could be read)
--      4 dead entry for a repeat   5 RPUSH|LPUSH   6 retention, s
-- Returns 'refused' | 'duplicate' | 'gone' (not in this hand any more).
for i = 3, 4 do redis.call('LLEN', KEYS[i]) end -- lists, or nothing is changed (WRONGTYPE)
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then return 'gone' end
if ARGV[3] ~= '' then
  if redis.call('EXISTS', KEYS[2]) == 1 then
    redis.call('RPUSH', KEYS[3], ARGV[4])
    return 'duplicate'
  end
  redis.call('HSET', KEYS[2], 'state', 'done')
  redis.call('EXPIRE', KEYS[2], ARGV[6])
  redis.call(ARGV[5], KEYS[4], ARGV[3])
end
if ARGV[2] ~= '' then redis.call('RPUSH', KEYS[3], ARGV[2]) end
return 'refused'
