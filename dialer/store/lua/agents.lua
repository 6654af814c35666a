-- Show the agents of a PBX's queues. Nothing is written if a newer worker has the PBX.
-- Include: _sound
-- KEYS 1 hash heartbeat   2 hash agents
-- ARGV 1 fencing number of the worker   2 lifetime, s   3 '1': these are all agents, others go
--      4… interface, agent as JSON ('' to remove it), …
-- Returns 1, or 0 if nothing was written.
sound(KEYS[1], 'hash')
if number(redis.call('HGET', KEYS[1], 'fence')) > tonumber(ARGV[1]) then return 0 end
sound(KEYS[2], 'hash')
if ARGV[3] == '1' then redis.call('DEL', KEYS[2]) end
for i = 4, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[2], ARGV[i])
  else
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  end
end
redis.call('EXPIRE', KEYS[2], ARGV[2])
return 1
