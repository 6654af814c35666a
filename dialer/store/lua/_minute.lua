-- Needs _time.
-- What is counted of a cell in one minute of this server is in the hash
-- dialer:minute:<cell>:<minutes since 1970>. A key of another type is left: nothing waits for it.
--   <pbx> <result>   number of Responses, counted by _finish
--   =ack <bound>     number of ACKs that came within so many ms after the admission, 'more' for later
--   =peak            most calls at once, as the heartbeat of a bridge saw them each second
local MINUTES_KEPT_S = 604800
local ACK_BOUNDS_MS = {1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000,
  1500, 2000, 3000, 5000, 7000, 10000, 15000, 20000, 30000}

-- cell_of(call): the cell in the name of a call's key, nil if the key is not ours.
local function cell_of(call)
  return string.match(call, '^dialer:call:([^:]+):')
end

-- minute_of(cell, now): the key of the minute of this time, ms.
local function minute_of(cell, now)
  return string.format('dialer:minute:%s:%d', cell, math.floor(now / 60000))
end

-- count(key, field, kept_s): count one more.
local function count(key, field, kept_s)
  if redis.pcall('HINCRBY', key, field, 1) == 1 then redis.pcall('EXPIRE', key, kept_s) end
end

-- count_ack(call, admitted_ms, now): count the ACK of a call.
local function count_ack(call, admitted_ms, now)
  local cell, since = cell_of(call), tonumber(admitted_ms or '')
  if not cell or not since then return end
  local bound = 'more'
  for _, most in ipairs(ACK_BOUNDS_MS) do
    if now - since <= most then
      bound = most
      break
    end
  end
  count(minute_of(cell, now), '=ack ' .. bound, MINUTES_KEPT_S)
end

-- note_peak(cell, calls, now): keep the most calls at once of this minute.
local function note_peak(cell, calls, now)
  local key = minute_of(cell, now)
  local seen = redis.pcall('HGET', key, '=peak')
  if type(seen) == 'table' or calls <= (tonumber(seen or '') or 0) then return end
  redis.pcall('HSET', key, '=peak', calls)
  redis.pcall('EXPIRE', key, MINUTES_KEPT_S)
end
