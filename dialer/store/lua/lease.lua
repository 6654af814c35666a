-- Lease slots and starts on a PBX for calls, in order, as many as it has room and pace for.
-- Include: _sound _governed _lease
-- KEYS 1 zset slots   2 string pace   3 hash heartbeat   4 hash verdict   5 hash starts
-- ARGV 1…7 see _lease   8… call id, its trunk ('' if no trunk's limit counts), …
-- Returns how many of the ids have a slot now, then the ids that had none before.
-- A call that already has a slot keeps it and its start. One without room for it ends the lease.
local t = redis.call('TIME')
local lease = lease_of(1, 1, t[1] * 1000000 + t[2])
local granted, new = 0, {}
for i = 8, #ARGV, 2 do
  if not lease.has_slot(ARGV[i]) then
    if not lease.has_room(ARGV[i + 1]) then break end
    lease.take(ARGV[i], ARGV[i + 1])
    new[#new + 1] = ARGV[i]
  end
  granted = granted + 1
end
lease.close()
return {granted, unpack(new)}
