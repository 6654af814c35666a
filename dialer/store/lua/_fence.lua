-- fenced(key, given, keep_s): an error if a newer worker of the PBX has taken over, nil if not. Then
-- older workers are fenced from now on. A caller without a number (a bridge) is never fenced.
-- Needs _sound.
--   key    string    dialer:fence:<cell>:<pbx>
local function fenced(key, given, keep_s)
  local mine = tonumber(given)
  if not mine then return nil end
  sound(key, 'string')
  local newest = number(redis.call('GET', key))
  if newest > mine then return redis.error_reply(string.format('FENCED %d', newest)) end
  if newest < mine then redis.call('SET', key, given, 'EX', keep_s) end
  return nil
end
