-- A bridge stops: return the elements in its hand to the head of Multcall's lists.
-- Include: _time _list
-- KEYS 1 zset bridges   2 list hand   3 list Request   4 list code hand   5 list CODLIGACAO
-- ARGV 1 this bridge   2 'LEFT'|'RIGHT' the head of Multcall's lists   3 dead after, ms
-- Returns how many were returned. From now on the bridge counts as dead: an element that its last
-- BLMOVE still moves into its hand is then taken over by another bridge.
for i = 3, 5, 2 do must_be_list(KEYS[i]) end
local n = 0
for i = 2, 4, 2 do
  while redis.call('LMOVE', KEYS[i], KEYS[i + 1], 'RIGHT', ARGV[2]) do n = n + 1 end
end
redis.call('ZADD', KEYS[1], now_ms() - ARGV[3] - 1, ARGV[1])
return n
