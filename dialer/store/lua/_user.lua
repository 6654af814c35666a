-- Users of the web page. The hash has for each name '<role> <generation> <added, ms> <password hash,
-- or -> <who added the user>'. No user can have the name of the field ':since'. Needs _sound.
local ROLES = {view = true, operate = true, admin = true}
local function is_name(name)
  return #name <= 64 and string.find(name, '^[%w.@_-]+$') ~= nil
end
-- user_of(name, text): {name, role, generation, added, hash, who}; nil if it is not ours.
local function user_of(name, text)
  if not text or not is_name(name) then return nil end
  local role, since, added, hash, by = string.match(text, '^(%l+) (%d+) (%d+) (%S+) (.*)$')
  if not role or not ROLES[role] or #since > 16 or #added > 14 then return nil end
  return {name, role, since, added, hash, by}
end
-- generation_of(users, name): that of a user, '' if there is none.
local function generation_of(users, name)
  local user = user_of(name, redis.call('HGET', users, name))
  return user and user[3] or ''
end
-- all_users(users): every user. Nothing of a key of another type.
local function all_users(users)
  local flat, found = redis.pcall('HGETALL', users), {}
  for i = 1, #flat, 2 do table.insert(found, user_of(flat[i], flat[i + 1])) end
  return found
end
-- is_last_admin(users, user): true if no other admin could take the place of this one. Another admin
-- without a password cannot take the place of one who has one.
local function is_last_admin(users, user)
  if user[2] ~= 'admin' then return false end
  for _, other in ipairs(all_users(users)) do
    local is_equal = other[5] ~= '-' or user[5] == '-'
    if other[2] == 'admin' and other[1] ~= user[1] and is_equal then return false end
  end
  return true
end
-- fresh_generation(users): a number that no user had before, also if Redis lost some: the time, µs.
local function fresh_generation(users)
  local t = redis.call('TIME')
  local since = math.max(t[1] * 1000000 + t[2], number(redis.call('HGET', users, ':since')) + 1)
  local text = string.format('%.0f', since)
  redis.call('HSET', users, ':since', text)
  return text
end
