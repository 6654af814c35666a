-- Answer a request that is not dialed. Remove it from its list.
-- Include: _time _list _dead _minute _finish
-- KEYS 1 list hand or parked   2 hash call   3 list dead   4 list Response   5 string dropped
-- ARGV 1 raw element   2 dead entry ('' for none)   3 Response ('' if no id could be read)
--      4 RPUSH|LPUSH   5 retention, s   6 Resultado
-- Returns 'refused' | 'duplicate' (nothing is changed) | 'gone' (no longer in this list), then how
-- many old entries the dead list dropped.
for i = 3, 4 do must_be_list(KEYS[i]) end
if ARGV[3] ~= '' and redis.call('EXISTS', KEYS[2]) == 1 then
  return {redis.call('LPOS', KEYS[1], ARGV[1]) and 'duplicate' or 'gone', 0}
end
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then return {'gone', 0} end
if ARGV[3] ~= '' then
  keep_done(KEYS[2], ARGV[6], now_ms(), ARGV[5])
  redis.call(ARGV[4], KEYS[4], ARGV[3])
  count_outcome(KEYS[2], '', ARGV[6])
end
if ARGV[2] == '' then return {'refused', 0} end
return {'refused', push_dead(KEYS[3], KEYS[5], ARGV[2])}
