-- fenced(key, number, keep_s): an error if a newer worker of the PBX has taken over, nil if not. Then
-- older workers are fenced from now on. A caller without a number (a bridge) is never fenced.
--   key    string    dialer:fence:<cell>:<pbx>
local function fenced(key, number, keep_s)
  local mine = tonumber(number)
  if not mine then return nil end
  local newest = tonumber(redis.call('GET', key) or '0')
  if newest > mine then return redis.error_reply(string.format('FENCED %d', newest)) end
  if newest < mine then redis.call('SET', key, number, 'EX', keep_s) end
  return nil
end
