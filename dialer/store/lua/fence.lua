-- Fence the older workers of a PBX off this cell, before its calls are read.
-- Include: _sound _fence
-- KEYS 1 string fence
-- ARGV 1 fencing number   2 lifetime of the fence, s
-- Returns 1, or the error FENCED with the number of a newer worker.
return fenced(KEYS[1], ARGV[1], ARGV[2]) or 1
