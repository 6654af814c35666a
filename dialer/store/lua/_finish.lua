-- Needs _time.
-- count_outcome(call, pbx, result): count a Response, by minute and by hour of this server, in the
-- hashes dialer:minute:<cell>:<minutes since 1970> and dialer:hour:<cell>:<hours since 1970>. The
-- cell is in the name of the call's key. A key of another type is left: no Response waits for it.
local MINUTES_KEPT_S, HOURS_KEPT_S = 604800, 34560000
local function count_outcome(call, pbx, result)
  local cell = string.match(call, '^dialer:call:([^:]+):')
  if not cell then return end
  local minute, field = math.floor(now_ms() / 60000), (pbx or '') .. ' ' .. result
  for key, kept_s in pairs({
    [string.format('dialer:minute:%s:%d', cell, minute)] = MINUTES_KEPT_S,
    [string.format('dialer:hour:%s:%d', cell, math.floor(minute / 60))] = HOURS_KEPT_S,
  }) do
    if redis.pcall('HINCRBY', key, field, 1) == 1 then redis.pcall('EXPIRE', key, kept_s) end
  end
end

-- keep_done(call, result, ended_ms, retention_s, error): reduce the entry of a done call to its
-- result, and its story for `dialer call`. It remains to recognize repeats of its request, and to
-- tell how a trial call went.
--   call     hash          dialer:call:<id>
-- The story is '<pbx> <epoch> <code_state> <admitted, ms>', then the ms from there until it was
-- dialed, accepted and answered, '-' for what is not known: dialer/domain/story.py reads it.
local function keep_done(call, result, ended_ms, retention_s, error)
  local f = redis.pcall('HMGET', call, 'pbx', 'epoch', 'code_state', 'admitted_ms', 'dialed_ms',
    'accepted_ms', 'answered_ms')
  redis.call('DEL', call)
  redis.call('HSET', call, 'state', 'done', 'result', result, 'ended_ms', ended_ms)
  local since = tonumber(f[4] or '')
  if since then
    local told = {f[1] or '-', f[2] or '-', f[3] or '-', f[4]}
    for i = 5, 7 do
      local at = tonumber(f[i] or '')
      told[i] = at and string.format('%.0f', at - since) or '-'
    end
    redis.call('HSET', call, 'story', table.concat(told, ' '))
  end
  if error and error ~= '' then redis.call('HSET', call, 'error', error) end
  redis.call('EXPIRE', call, retention_s)
end

-- finish(...): send the Response of an ended call, mark it as done, free its slot of the cell and
-- set Counter. The outcome is counted.
--   call     hash          dialer:call:<id>
--   live     sorted set    dialer:live:<cell>
--   counter  string        ZancURA2.0-Counter-<cell>
--   response list          ZancURA2.0-Response-<cell>
local function finish(call, live, counter, response, id, push, retention_s)
  local f = redis.call('HMGET', call, 'head', 'code', 'tail', 'result', 'ended_ms', 'error', 'pbx')
  redis.call(push, response, f[1] .. (f[2] or 'null') .. f[3])
  count_outcome(call, f[7], f[4])
  keep_done(call, f[4], f[5], retention_s, f[6])
  redis.call('ZREM', live, id)
  redis.call('SET', counter, redis.call('ZCARD', live))
end
