-- Needs _time and _minute.
-- count_outcome(call, pbx, result): count a Response, by minute and by hour of this server: in the
-- hash of _minute and in dialer:hour:<cell>:<hours since 1970>.
local HOURS_KEPT_S = 34560000
local function count_outcome(call, pbx, result)
  local cell = cell_of(call)
  if not cell then return end
  local now, field = now_ms(), (pbx or '') .. ' ' .. result
  count(minute_of(cell, now), field, MINUTES_KEPT_S)
  count(string.format('dialer:hour:%s:%d', cell, math.floor(now / 3600000)), field, HOURS_KEPT_S)
end

-- list_ended(call, id, ended_ms, result, pbx, kept_s): put a call at the head of its cell's list of
-- ended calls, dialer:ended:<cell>, as '<ended, ms> <result> <pbx> <id>'. The newest ENDED_KEPT are
-- kept, and up to ENDED_SPARE more, so that the list is not cut for each call. A key of another type
-- is left.
local ENDED_KEPT, ENDED_SPARE = 1000, 100
local function list_ended(call, id, ended_ms, result, pbx, kept_s)
  local cell = cell_of(call)
  if not cell then return end
  local key = 'dialer:ended:' .. cell
  local length = redis.pcall('LPUSH', key, table.concat({ended_ms, result, pbx or '-', id}, ' '))
  if type(length) == 'table' or length % ENDED_SPARE ~= 1 then return end
  redis.pcall('LTRIM', key, 0, ENDED_KEPT - 1)
  redis.pcall('EXPIRE', key, kept_s)
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
-- set Counter. The outcome is counted, and the call listed.
--   call     hash          dialer:call:<id>
--   live     sorted set    dialer:live:<cell>
--   counter  string        ZancURA2.0-Counter-<cell>
--   response list          ZancURA2.0-Response-<cell>
local function finish(call, live, counter, response, id, push, retention_s)
  local f = redis.call('HMGET', call, 'head', 'code', 'tail', 'result', 'ended_ms', 'error', 'pbx')
  redis.call(push, response, f[1] .. (f[2] or 'null') .. f[3])
  count_outcome(call, f[7], f[4])
  list_ended(call, id, f[5], f[4], f[7], retention_s)
  keep_done(call, f[4], f[5], retention_s, f[6])
  redis.call('ZREM', live, id)
  redis.call('SET', counter, redis.call('ZCARD', live))
end
