-- Begin a session of a user of the web page.
-- Include: _time
-- KEYS 1 hash session
-- ARGV 1 name of the user   2 generation of the user   3 token of its forms   4 lifetime without use, ms
-- Returns 1. A repeat (its reply was lost) begins it again: nobody has used it.
redis.call('HSET', KEYS[1], 'user', ARGV[1], 'since', ARGV[2], 'csrf', ARGV[3],
  'created_ms', now_ms())
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
