-- Add a user, or change one, and note the deed. A change begins a new generation: it ends all
-- sessions of the user.
-- Include: _time _sound _user _deed
-- KEYS 1 hash users   2 stream deeds   3 string reply to this change
-- ARGV 1 name   2 role, '' as it is   3 password hash, '-' for none, '' as it is   4 who does it
--      5 'new' (there must be no such user) | 'first' (there must be no user) | 'known' (there must be
--      such a user) | 'any'
--      6 deeds to keep   7 lifetime of the reply, s
-- Returns 'added' | 'changed' | 'same' (it was so before); or 'taken' (there is such a user, or any) |
-- 'gone' (there is none) | 'last_admin' (no admin would be left, or none with a password): nothing is
-- changed then. A repeat of the same change (its reply was lost) returns the same.
sound(KEYS[1], 'hash')
sound(KEYS[2], 'stream')
local before = redis.call('GET', KEYS[3])
if before then return before end
local name, by = ARGV[1], ARGV[4]
local user = user_of(name, redis.call('HGET', KEYS[1], name))
if user and ARGV[5] == 'new' then return 'taken' end
if ARGV[5] == 'first' and #all_users(KEYS[1]) > 0 then return 'taken' end
if not user and ARGV[5] == 'known' then return 'gone' end
local role = ARGV[2] ~= '' and ARGV[2] or user[2]
local hash = ARGV[3] ~= '' and ARGV[3] or user[5]
local said, did, what = 'added', 'user_added', name .. ': ' .. role
if user then
  if role == user[2] and hash == user[5] then return 'same' end
  local is_less = role ~= 'admin' or hash == '-' and user[5] ~= '-'
  if is_less and is_last_admin(KEYS[1], user) then return 'last_admin' end
  local parts = {}
  if role ~= user[2] then table.insert(parts, user[2] .. ' -> ' .. role) end
  if hash ~= user[5] then table.insert(parts, hash == '-' and 'no password' or 'password') end
  said, did, what = 'changed', 'user_changed', name .. ': ' .. table.concat(parts, ', ')
end
note(KEYS[2], ARGV[6], by, did, what, '')
local added = user and user[4] or string.format('%.0f', now_ms())
local since = fresh_generation(KEYS[1])
redis.call('HSET', KEYS[1], name,
  table.concat({role, since, added, hash, user and user[6] or by}, ' '))
redis.call('SET', KEYS[3], said, 'EX', ARGV[7])
return said
