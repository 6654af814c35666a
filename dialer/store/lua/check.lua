-- Find out which requests `admit` would refuse, before anything is leased for them.
-- Include: _time
-- KEYS for each request: 1 hash call   2 zset calls to its number
-- ARGV 1 window of the limit per number, ms (0: there is no limit)
-- Returns for each request -1 if its id was used before, else the calls to its number.
local now = now_ms()
local out = {}
for i = 1, #KEYS, 2 do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    out[#out + 1] = -1
  elseif ARGV[1] == '0' then
    out[#out + 1] = 0
  else
    out[#out + 1] = redis.call('ZCOUNT', KEYS[i + 1], '(' .. (now - ARGV[1]), '+inf')
  end
end
return out
