-- End a call as `end` does and release its slot, where ledger and registry share a server.
-- Include: _time _list _state _minute _finish _end _sound _fence _release
-- KEYS 1-6 as in _end   7 zset slots   8 hash heartbeat   9 string fence
-- ARGV 1-9 as in _end   10 fencing number   11 lifetime of the fence, s
-- Returns 'done' | 'ended' (the code is awaited) | 'void' (the call was over, or has changed). The
-- slot is released in any case: Asterisk has no channel of the call any longer.
local error = fenced(KEYS[9], ARGV[10], ARGV[11])
if error then return error end
must_be_list(KEYS[6])
release(KEYS[7], KEYS[8], ARGV[10], {ARGV[1]})
return end_call()
