-- End a call. Send its Response now; if its code is awaited, the Response follows later.
-- Include: _time _list _state _minute _finish _end _sound _fence
-- KEYS 1-6 as in _end   7 string fence, for a worker
-- ARGV 1-9 as in _end   10 fencing number   11 lifetime of the fence, s, for a worker
-- Returns 'done' | 'ended' (the code is awaited) | 'void' (the call was over, or has changed).
local error = fenced(KEYS[7], ARGV[10], ARGV[11])
if error then return error end
return end_call()
