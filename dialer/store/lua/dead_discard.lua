-- Take entries out of the dead list for good. The trail keeps the newest of them for a while.
-- Include: _list
-- KEYS 1 list dead   2 list trail
-- ARGV 1 entries of the trail   2 its lifetime, s   3… for each entry: the entry, what is noted of it
-- Returns how many were there.
must_be_list(KEYS[1])
must_be_list(KEYS[2])
local n = 0
for i = 3, #ARGV, 2 do
  if redis.call('LREM', KEYS[1], 1, ARGV[i]) == 1 then
    redis.call('LPUSH', KEYS[2], ARGV[i + 1])
    n = n + 1
  end
end
redis.call('LTRIM', KEYS[2], 0, ARGV[1] - 1)
if n > 0 then redis.call('EXPIRE', KEYS[2], ARGV[2]) end
return n
