-- End a session of the web page.
-- KEYS 1 hash session
-- Returns 1 if there was one, else 0.
return redis.call('DEL', KEYS[1])
