-- governed(beat): what the governor of a PBX's worker limits: {limit, trunks = {name = {limit}}}.
-- Empty if there is no governor, or if a worker of an older release has taken its place.
--   beat     hash          dialer:pbx:<pbx>
local function governed(beat)
  local f = redis.call('HMGET', beat, 'governor', 'instance')
  local is_json, found = pcall(cjson.decode, f[1] or '')
  if not is_json or type(found) ~= 'table' or found.instance ~= f[2] then return {} end
  return found
end
-- slowed(gap, burst, limit): µs between starts, and starts at once, under a limit of calls a second.
local function slowed(gap, burst, limit)
  if type(limit) ~= 'number' or not (limit >= 0.001 and limit <= 1000000) then return gap, burst end
  local slower = math.floor(1000000 / limit + 0.5)
  if slower <= gap then return gap, burst end
  return slower, math.min(burst, math.max(2, math.ceil(limit / 4)))
end
-- next_start(latest, now, gap, burst): time of the next start after the latest one, µs, as
-- Pace.next_start_us. A time more than a gap ahead is void: the clock was set back.
local function next_start(latest, now, gap, burst)
  if latest > now + gap then return now end
  return math.max(math.min(latest, now) + gap, now - gap * (burst - 1))
end
-- trunk_of(limits, name, starts, now): {gap, due} of a trunk, µs; gap 0 if it is not limited.
-- Needs _sound.
--   starts   hash          dialer:starts:<pbx>
local function trunk_of(limits, name, starts, now)
  local found = type(limits.trunks) == 'table' and limits.trunks[name]
  local gap = slowed(0, 1, type(found) == 'table' and found.limit)
  if gap == 0 then return {gap = 0, due = 0} end
  local burst = math.max(1, math.ceil(found.limit / 10))
  local latest = number(redis.call('HGET', starts, 'trunk:' .. name))
  return {gap = gap, due = next_start(latest, now, gap, burst)}
end
