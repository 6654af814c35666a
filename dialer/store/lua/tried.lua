-- Record how the trial call of a PBX went. After a success the verdict is lifted.
-- Include: _time _sound
-- KEYS 1 hash verdict   2 hash heartbeat
-- ARGV 1 call id of the trial   2 '1' if it succeeded, else '0'   3 lifetime of the verdict, s
--      4 the worker counts its results over, s
-- Returns 1, or 0 if that call is not the trial.
-- A lifted verdict leaves the results until then, so that the calls before it are not judged again.
sound(KEYS[1], 'hash')
sound(KEYS[2], 'hash')
if redis.call('HGET', KEYS[1], 'trial') ~= ARGV[1] then return 0 end
if ARGV[2] == '1' then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'lifted', redis.call('HGET', KEYS[2], 'results') or '')
  redis.call('EXPIRE', KEYS[1], ARGV[4])
else
  redis.call('HSET', KEYS[1], 'trial', '', 'trial_ms', now_ms())
  redis.call('HSET', KEYS[1], 'trials', number(redis.call('HGET', KEYS[1], 'trials')) + 1)
  redis.call('EXPIRE', KEYS[1], ARGV[3])
end
return 1
