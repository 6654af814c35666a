-- must_be_list(key): fail with WRONGTYPE if a key is not a list. A step calls it before
-- its first write, because Redis does not undo the writes of a script that fails.
local function must_be_list(key) redis.call('LLEN', key) end
