-- is_legal(state, legal): true if the step is legal for a call in `state` (false: there is no such
-- call). `legal` contains the legal states, each between blanks: ' queued claimed '.
local function is_legal(state, legal)
  return state and string.find(legal, ' ' .. state .. ' ', 1, true) ~= nil
end
-- is_whole(state, epoch, states): true if an entry has one of all `states`, and an epoch.
local function is_whole(state, epoch, states)
  return is_legal(state, states) and string.find(epoch or '', '^%d+$') ~= nil
end
