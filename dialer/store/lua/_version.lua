-- version_of(parameters, changes): number of the last change. The trail counts too, so that numbers
-- are not used again if somebody has deleted the parameters. Needs _sound.
local function version_of(parameters, changes)
  local version = redis.pcall('HGET', parameters, 'version')
  local last = redis.pcall('XREVRANGE', changes, '+', '-', 'COUNT', 1)
  version = type(version) ~= 'table' and number(version) or 0
  local latest = not last.err and last[1] and number(string.match(last[1][1], '^(%d+)-')) or 0
  return math.max(version, latest)
end
