-- keep_done(call, result, ended_ms, retention_s, error): reduce the entry of a done call to its
-- result. It remains to recognize repeats of its request, and to tell how a trial call went.
--   call     hash          dialer:call:<id>
local function keep_done(call, result, ended_ms, retention_s, error)
  redis.call('DEL', call)
  redis.call('HSET', call, 'state', 'done', 'result', result, 'ended_ms', ended_ms)
  if error and error ~= '' then redis.call('HSET', call, 'error', error) end
  redis.call('EXPIRE', call, retention_s)
end

-- finish(...): send the Response of an ended call, mark it as done, free its slot of the cell and
-- set Counter.
--   call     hash          dialer:call:<id>
--   live     sorted set    dialer:live:<cell>
--   counter  string        ZancURA2.0-Counter-<cell>
--   response list          ZancURA2.0-Response-<cell>
local function finish(call, live, counter, response, id, push, retention_s)
  local f = redis.call('HMGET', call, 'head', 'code', 'tail', 'result', 'ended_ms', 'error')
  redis.call(push, response, f[1] .. (f[2] or 'null') .. f[3])
  keep_done(call, f[4], f[5], retention_s, f[6])
  redis.call('ZREM', live, id)
  redis.call('SET', counter, redis.call('ZCARD', live))
end
