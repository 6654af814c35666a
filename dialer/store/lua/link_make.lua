-- Make a one-time link to the web page, and note the deed.
-- Include: _time _sound _user _deed
-- KEYS 1 hash link   2 stream deeds   3 hash users
-- ARGV 1 name of the user, '' if the person chooses it   2 role   3 '1' if it signs the user in, '0' if
--      it leads to the form for a password   4 lifetime, s   5 who makes it   6 deeds to keep
-- Returns 1. A repeat (its reply was lost) changes nothing.
sound(KEYS[2], 'stream')
sound(KEYS[3], 'hash')
if redis.call('EXISTS', KEYS[1]) == 1 then return 1 end
local whose = ARGV[1] ~= '' and ARGV[1] or 'new user'
note(KEYS[2], ARGV[6], ARGV[5], 'link_made', whose .. ': ' .. ARGV[2], '')
redis.call('HSET', KEYS[1], 'name', ARGV[1], 'role', ARGV[2], 'enters', ARGV[3],
  'since', generation_of(KEYS[3], ARGV[1]))
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
