-- Push elements to one of Multcall's lists, each only once even if this script is repeated.
-- KEYS 1 list  Request or CODLIGACAO   2 set  names of pushed elements
-- ARGV 1 RPUSH|LPUSH   2 lifetime of the set, s   3… name, element, name, element, …
-- Returns the number of elements pushed by this execution.
local n = 0
for i = 3, #ARGV, 2 do
  if redis.call('SADD', KEYS[2], ARGV[i]) == 1 then
    redis.call(ARGV[1], KEYS[1], ARGV[i + 1])
    n = n + 1
  end
end
redis.call('EXPIRE', KEYS[2], ARGV[2])
return n
