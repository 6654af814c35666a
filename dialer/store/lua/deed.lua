-- Add a deed to the trail of deeds, or to that of failed sign-ins.
-- Include: _time _sound _deed
-- KEYS 1 stream deeds or failures   2 string reply to this deed
-- ARGV 1 who   2 did   3 what   4 why   5 deeds to keep   6 lifetime of the reply, s
-- Returns 1. A repeat (its reply was lost) adds nothing.
sound(KEYS[1], 'stream')
if redis.call('EXISTS', KEYS[2]) == 1 then return 1 end
note(KEYS[1], ARGV[5], ARGV[1], ARGV[2], ARGV[3], ARGV[4])
redis.call('SET', KEYS[2], 1, 'EX', ARGV[6])
return 1
