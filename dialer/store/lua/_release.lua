-- release(slots, heartbeat, given, ids): release slots of a PBX. Calls without a slot are ignored.
-- `given` is the fencing number of the worker, '' for a bridge. Needs _sound.
--   slots      sorted set  dialer:slots:<pbx>
--   heartbeat  hash        dialer:pbx:<pbx>
-- Does nothing for a worker that is fenced.
local function release(slots, heartbeat, given, ids)
  sound(slots, 'zset')
  sound(heartbeat, 'hash')
  local newest = number(redis.call('HGET', heartbeat, 'fence'))
  if given ~= '' and newest > tonumber(given) then return end
  for _, id in ipairs(ids) do redis.call('ZREM', slots, id) end
end
