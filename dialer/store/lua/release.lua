-- Release slots of a PBX. Calls without a slot are ignored.
-- Include: _sound _release
-- KEYS 1 zset slots   2 hash heartbeat
-- ARGV 1 fencing number of the worker, '' for a bridge   2… call ids
-- Does nothing for a worker that is fenced. Returns nothing.
local ids = {}
for i = 2, #ARGV do ids[i - 1] = ARGV[i] end
release(KEYS[1], KEYS[2], ARGV[1], ids)
