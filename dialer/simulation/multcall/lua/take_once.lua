-- Takes elements from one of Multcall's lists, none lost with a reply that never arrived.
-- KEYS 1 list  ACK or Response   2 list  the reader's hand   3 string  number of the last turn
-- ARGV 1 turn, counted up; a repeat or a straggler of an earlier one takes nothing
--      2 how many elements of the hand the reader has by now   3 'LEFT'|'RIGHT' the head
--      4 at most   5 lifetime of hand and turn, s
-- Returns what is in the hand.
if tonumber(ARGV[1]) > tonumber(redis.call('GET', KEYS[3]) or '0') then
  redis.call('SET', KEYS[3], ARGV[1], 'EX', ARGV[5])
  redis.call('LTRIM', KEYS[2], ARGV[2], -1)
  for _ = 1, tonumber(ARGV[4]) do
    if not redis.call('LMOVE', KEYS[1], KEYS[2], ARGV[3], 'RIGHT') then break end
  end
  redis.call('EXPIRE', KEYS[2], ARGV[5])
end
return redis.call('LRANGE', KEYS[2], 0, -1)
