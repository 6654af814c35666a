-- push_dead(dead, dropped, entry): append an entry to the dead list of a cell. If it has more than
-- DEAD_MAX entries, drop the oldest ones and count them.
--   dead     list    dialer:dead:<cell>
--   dropped  string  dialer:dropped:<cell>
-- Returns how many were dropped now.
local DEAD_MAX = 100000
local function push_dead(dead, dropped, entry)
  local excess = redis.call('RPUSH', dead, entry) - DEAD_MAX
  if excess <= 0 then return 0 end
  redis.call('LTRIM', dead, excess, -1)
  redis.call('INCRBY', dropped, excess)
  return excess
end
