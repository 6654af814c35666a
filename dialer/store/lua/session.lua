-- Read a session of the web page with its user, and renew its lifetime. It ends here if its user is
-- gone or of another generation, if it is too old, or if it cannot be read. If Redis takes no writes,
-- the session is returned all the same, and not renewed: people can look at the page.
-- Include: _time _sound _user
-- KEYS 1 hash session   2 hash users
-- ARGV 1 lifetime without use, ms   2 longest lifetime, ms
-- Returns the token of its forms, then its user as in `users`; nothing if there is no such session.
sound(KEYS[1], 'hash')
sound(KEYS[2], 'hash')
local f = redis.call('HMGET', KEYS[1], 'user', 'since', 'csrf', 'created_ms')
local name, since, csrf = f[1], f[2], f[3]
local user = name and user_of(name, redis.call('HGET', KEYS[2], name))
local age = math.abs(now_ms() - number(f[4]))
local left = math.min(tonumber(ARGV[1]), tonumber(ARGV[2]) - age)
if not user or user[3] ~= since or not csrf or left <= 0 then
  redis.pcall('DEL', KEYS[1])
  return {}
end
redis.pcall('PEXPIRE', KEYS[1], string.format('%.0f', left))
return {csrf, unpack(user)}
