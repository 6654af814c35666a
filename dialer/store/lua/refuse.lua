-- Answers a request that is not dialed. It leaves the bridge's hand.
-- Include: _time _list _dead _finish
-- KEYS 1 list hand   2 hash call   3 list dead   4 list Response   5 string dropped
-- ARGV 1 raw element   2 dead entry ('' for none)   3 Response ('' where no id could be read)
--      4 dead entry for a repeat   5 RPUSH|LPUSH   6 retention, s
--      7 Resultado
-- Returns 'refused' | 'duplicate' | 'gone' (not in this hand any more), then how many old entries
-- the dead list dropped.
for i = 3, 4 do must_be_list(KEYS[i]) end
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then return {'gone', 0} end
if ARGV[3] ~= '' then
  if redis.call('EXISTS', KEYS[2]) == 1 then
    return {'duplicate', push_dead(KEYS[3], KEYS[5], ARGV[4])}
  end
  keep_done(KEYS[2], ARGV[7], now_ms(), ARGV[6])
  redis.call(ARGV[5], KEYS[4], ARGV[3])
end
if ARGV[2] == '' then return {'refused', 0} end
return {'refused', push_dead(KEYS[3], KEYS[5], ARGV[2])}
