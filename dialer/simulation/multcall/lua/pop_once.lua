-- Pop elements from one of Multcall's lists into the reader's hand; a lost reply loses nothing.
-- KEYS 1 list  ACK or Response   2 list  the reader's hand   3 string  number of the last turn
-- ARGV 1 turn, increasing; a repeat, or a late command of an earlier turn, pops nothing
--      2 number of elements in the hand that the reader has received   3 'LEFT'|'RIGHT' the head
--      4 maximum number of elements   5 lifetime of hand and turn, s
-- Returns the hand.
if tonumber(ARGV[1]) > tonumber(redis.call('GET', KEYS[3]) or '0') then
  redis.call('SET', KEYS[3], ARGV[1], 'EX', ARGV[5])
  redis.call('LTRIM', KEYS[2], ARGV[2], -1)
  for _ = 1, tonumber(ARGV[4]) do
    if not redis.call('LMOVE', KEYS[1], KEYS[2], ARGV[3], 'RIGHT') then break end
  end
  redis.call('EXPIRE', KEYS[2], ARGV[5])
end
return redis.call('LRANGE', KEYS[2], 0, -1)
