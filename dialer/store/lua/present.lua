-- Show that a worker serves its PBX for these cells, or that it no longer does.
-- KEYS for each cell: string worker
-- ARGV 1 the worker   2 lifetime, s; 0: it has ended
-- Returns nothing.
for _, key in ipairs(KEYS) do
  if ARGV[2] ~= '0' then
    redis.call('SET', key, ARGV[1], 'EX', ARGV[2])
  elseif redis.pcall('GET', key) == ARGV[1] then
    redis.call('DEL', key)
  end
end
