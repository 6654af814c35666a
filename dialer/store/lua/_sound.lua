-- What another program, or an operator, may have left in our keys must not stop a step.
-- number(text): a whole or decimal number; 0 if it is missing, no number, or too great to be ours.
local function number(text)
  local n = tonumber(text or '') or 0
  if n ~= n or math.abs(n) > 9007199254740991 then return 0 end
  return n
end
-- sound(key, kind): delete a key that has another type. Later steps write its contents again.
local function sound(key, kind)
  local found = redis.pcall('TYPE', key).ok  -- nil for a user without that right
  if found and found ~= kind and found ~= 'none' then redis.call('DEL', key) end
end
