-- Look at a one-time link to the web page, or use it. A used one stays until its lifetime is over, so
-- that a repeat is recognized. A link is over too when its user was removed, or added, or got another
-- role or password since it was made. One without a name is for the first user: it is over when there
-- is any.
-- Include: _sound _user
-- KEYS 1 hash link   2 hash users
-- ARGV 1 token of this use, '' to look only
-- Returns name, role, '1' or '0' as in `link_make`; nothing if there is no such link, or if it was used.
-- A repeat of the same use (its reply was lost) returns the same.
sound(KEYS[1], 'hash')
sound(KEYS[2], 'hash')
local f = redis.call('HMGET', KEYS[1], 'name', 'role', 'enters', 'used_by', 'since')
local name, role, enters, used_by, since = f[1], f[2], f[3], f[4], f[5]
if not name or not (name == '' or is_name(name)) or not ROLES[role or ''] then return {} end
if name == '' and #all_users(KEYS[2]) > 0 then return {} end
if since ~= generation_of(KEYS[2], name) then return {} end
if used_by and used_by ~= ARGV[1] then return {} end
if ARGV[1] ~= '' then redis.call('HSET', KEYS[1], 'used_by', ARGV[1]) end
return {name, role, enters == '1' and name ~= '' and '1' or '0'}
