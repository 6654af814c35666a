-- Read the users of the web page.
-- Include: _sound _user
-- KEYS 1 hash users
-- ARGV 1 name of one user, '' for all
-- Returns for each user name, role, generation, when added (ms), password hash or '-', who added it.
-- What is no user of ours is left out.
if ARGV[1] == '' then return all_users(KEYS[1]) end
local text = redis.pcall('HGET', KEYS[1], ARGV[1])
if type(text) ~= 'string' then return {} end
return {user_of(ARGV[1], text)}
