-- Lease slots and starts on a PBX for calls, in order, as many as it has room and pace for.
-- Include: _sound _lease
-- KEYS 1 zset slots   2 string pace   3 hash heartbeat   4 hash verdict   5 hash starts
-- ARGV 1…7 see _lease   8… call ids
-- Returns how many of the ids have a slot now, then the ids that had none before.
-- A call that already has a slot keeps it and its start.
local t = redis.call('TIME')
local lease = lease_of(1, 1, t[1] * 1000000 + t[2])
local granted, new = 0, {}
for i = 8, #ARGV do
  if not lease.has_slot(ARGV[i]) then
    if not lease.has_room() then break end
    lease.take(ARGV[i])
    new[#new + 1] = ARGV[i]
  end
  granted = granted + 1
end
lease.close()
return {granted, unpack(new)}
