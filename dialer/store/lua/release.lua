-- Release slots of a PBX. Calls without a slot are ignored.
-- Include: _sound
-- KEYS 1 zset slots   2 hash heartbeat
-- ARGV 1 fencing number of the worker, '' for a bridge   2… call ids
-- Does nothing for a worker that is fenced. Returns nothing.
sound(KEYS[1], 'zset')
sound(KEYS[2], 'hash')
local newest = number(redis.call('HGET', KEYS[2], 'fence'))
if ARGV[1] ~= '' and newest > tonumber(ARGV[1]) then return end
for i = 2, #ARGV do redis.call('ZREM', KEYS[1], ARGV[i]) end
