-- Shared by every step that can end a call's life; put in front of those scripts.
-- finish: the Response, `done`, the cell's slot and Counter, all in this one step.
--   call     hash          dialer:call:<id>
--   live     sorted set    dialer:live:<cell>
--   counter  string        ZancURA2.0-Counter-<cell>
--   response list          ZancURA2.0-Response-<cell>
local function finish(call, live, counter, response, id, push, retention_s)
  local part = redis.call('HMGET', call, 'head', 'code', 'tail')
  redis.call(push, response, part[1] .. (part[2] or 'null') .. part[3])
  redis.call('HSET', call, 'state', 'done')
  redis.call('HDEL', call, 'head', 'tail', 'code', 'request', 'boot')
  redis.call('EXPIRE', call, retention_s)
  redis.call('ZREM', live, id)
  redis.call('SET', counter, redis.call('ZCARD', live))
end
