-- Give a call whose entry was destroyed a state in which nobody dials it and the bridge can end it.
-- Include: _state _sound
-- KEYS 1 hash call   2 zset live
-- ARGV 1 call id   2 all states, each between blanks   3 the state that it gets
-- Returns its new epoch, or 0 if its entry is sound or the call is over.
if not redis.call('ZSCORE', KEYS[2], ARGV[1]) then return 0 end
sound(KEYS[1], 'hash')
local f = redis.call('HMGET', KEYS[1], 'state', 'epoch')
if is_whole(f[1], f[2], ARGV[2]) then return 0 end
local epoch = math.floor(math.max(0, number(f[2]))) + 1
redis.call('HSET', KEYS[1], 'state', ARGV[3], 'epoch', string.format('%.0f', epoch))
return epoch
