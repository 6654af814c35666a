-- A bridge stops: what it has in hand goes back to the head of Multcall's lists.
-- KEYS 1 zset bridges   2 list hand   3 list Request   4 list code hand   5 list CODLIGACAO
-- ARGV 1 this bridge   2 'LEFT'|'RIGHT' the head of Multcall's lists
-- Returns how many went back.
local n = 0
for i = 2, 4, 2 do
  while redis.call('LMOVE', KEYS[i], KEYS[i + 1], 'RIGHT', ARGV[2]) do n = n + 1 end
end
redis.call('ZREM', KEYS[1], ARGV[1])
return n
