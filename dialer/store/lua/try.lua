-- Make a call that is already queued to a PBX the trial call of its verdict, if none is under way.
-- Include: _time _sound
-- KEYS 1 hash verdict
-- ARGV 1 call id   2 pause after a failed trial, ms   3 a trial is lost after, ms
-- Returns 1, or 0 if there is no verdict or no trial is due.
sound(KEYS[1], 'hash')
local f = redis.call('HMGET', KEYS[1], 'reason', 'trial', 'trial_ms')
if not f[1] then return 0 end
local now = now_ms()
local pause = (f[2] or '') ~= '' and ARGV[3] or ARGV[2]
if now - number(f[3]) < tonumber(pause) then return 0 end
redis.call('HSET', KEYS[1], 'trial', ARGV[1], 'trial_ms', now)
return 1
