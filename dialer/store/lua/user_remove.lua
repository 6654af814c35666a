-- Remove a user, and note the deed. All sessions of the user end.
-- Include: _time _sound _user _deed
-- KEYS 1 hash users   2 stream deeds   3 string reply to this change
-- ARGV 1 name   2 who does it   3 deeds to keep   4 lifetime of the reply, s
-- Returns 'removed' | 'gone' (there is no such user) | 'last_admin' (no admin would be left, or none
-- with a password). A repeat of the same change (its reply was lost) returns the same.
sound(KEYS[1], 'hash')
sound(KEYS[2], 'stream')
local before = redis.call('GET', KEYS[3])
if before then return before end
local user = user_of(ARGV[1], redis.call('HGET', KEYS[1], ARGV[1]))
if not user then return 'gone' end
if is_last_admin(KEYS[1], user) then return 'last_admin' end
note(KEYS[2], ARGV[3], ARGV[2], 'user_removed', ARGV[1] .. ': ' .. user[2], '')
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('SET', KEYS[3], 'removed', 'EX', ARGV[4])
return 'removed'
