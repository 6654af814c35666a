-- A bridge stops: what it has in hand goes back to the head of Multcall's lists.
-- KEYS 1 zset bridges   2 list hand   3 list Request   4 list code hand   5 list CODLIGACAO
-- ARGV 1 this bridge   2 'LEFT'|'RIGHT' the head of Multcall's lists   3 dead after, ms
-- Returns how many went back. From now on it counts as dead: what a last BLMOVE of it may still
-- put into its hand is taken over.
for i = 3, 5, 2 do redis.call('LLEN', KEYS[i]) end -- lists, or nothing is changed (WRONGTYPE)
local n = 0
for i = 2, 4, 2 do
  while redis.call('LMOVE', KEYS[i], KEYS[i + 1], 'RIGHT', ARGV[2]) do n = n + 1 end
end
local t = redis.call('TIME')
redis.call('ZADD', KEYS[1], t[1] * 1000 + math.floor(t[2] / 1000) - ARGV[3] - 1, ARGV[1])
return n
