-- Put the hand of a stopping bridge back into Multcall's lists. Parked requests stay: any bridge of
-- the cell, also one that starts later, dials them.
-- Include: _time _list
-- KEYS 1 zset bridges   2 list hand   3 list Request   4 list code hand   5 list CODLIGACAO
-- ARGV 1 this bridge   2 'LEFT'|'RIGHT' the head of Multcall's lists   3 dead after, ms
-- Returns how many went back. The bridge counts as dead from now on, so that another one
-- takes over what its last BLMOVE may still move to its hand.
for i = 3, 5, 2 do must_be_list(KEYS[i]) end
local n = 0
local function put_back(from, to)
  while redis.call('LMOVE', from, to, 'RIGHT', ARGV[2]) do n = n + 1 end
end
put_back(KEYS[2], KEYS[3])
put_back(KEYS[4], KEYS[5])
redis.call('ZADD', KEYS[1], now_ms() - ARGV[3] - 1, ARGV[1])
return n
