-- must_be_list: stop the step here (WRONGTYPE), before it changes anything, if a key is no list.
local function must_be_list(key) redis.call('LLEN', key) end
