-- Move requests from the list where they wait to the list of their trunk, which has no room.
-- Include: _list
-- KEYS 1 list hand or parked   2 set trunks with parked requests
-- ARGV 1 prefix of every parked list   2… trunk, raw element, trunk, raw element, …
-- Returns how many were in the first list. A parked list belongs to all bridges of the cell.
redis.call('SCARD', KEYS[2]) -- a set, or nothing is changed (WRONGTYPE)
for i = 2, #ARGV, 2 do must_be_list(ARGV[1] .. ARGV[i]) end
local n = 0
for i = 2, #ARGV, 2 do
  if redis.call('LREM', KEYS[1], 1, ARGV[i + 1]) == 1 then
    redis.call('RPUSH', ARGV[1] .. ARGV[i], ARGV[i + 1])
    redis.call('SADD', KEYS[2], ARGV[i])
    n = n + 1
  end
end
return n
