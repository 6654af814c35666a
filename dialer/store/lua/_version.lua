-- What the steps of live parameters share. Needs _sound.
-- version_of(parameters, changes): number of the last change. The trail counts too, so that numbers
-- are not used again if somebody has deleted the parameters.
local function version_of(parameters, changes)
  local version = redis.pcall('HGET', parameters, 'version')
  local last = redis.pcall('XREVRANGE', changes, '+', '-', 'COUNT', 1)
  version = type(version) ~= 'table' and number(version) or 0
  local latest = not last.err and last[1] and number(string.match(last[1][1], '^(%d+)-')) or 0
  return math.max(version, latest)
end
-- has_lost(parameters, changes, mark): true if the change with that mark, '<number> <token>', is not
-- the one of that number here: Redis has lost it, and perhaps given its number to another one.
local function has_lost(parameters, changes, mark)
  local known, token = string.match(mark, '^(%d+) (.+)$')
  if not known then return false end
  if version_of(parameters, changes) < tonumber(known) then return true end
  local present = redis.pcall('HGET', parameters, 'mark')
  local n, of_present = string.match(type(present) == 'string' and present or '', '^(%d+) (.+)$')
  if n == known then return of_present ~= token end
  local made = redis.pcall('XRANGE', changes, known .. '-0', known .. '-0')
  made = not made.err and made[1]
  return made and made[2][1] == 'token' and made[2][2] ~= token or false
end
