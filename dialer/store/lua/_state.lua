-- is_legal(state, legal): true if a call in `state` (false if there is no such call) may take the
-- step. `legal` holds the legal states, each between blanks: ' queued claimed '.
local function is_legal(state, legal)
  return state and string.find(legal, ' ' .. state .. ' ', 1, true) ~= nil
end
