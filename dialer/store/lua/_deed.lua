-- note(deeds, kept, by, did, what, why): add a deed to the trail, a stream. Needs _time.
local function note(deeds, kept, by, did, what, why)
  redis.call('XADD', deeds, 'MAXLEN', '~', kept, '*', 'at_ms', now_ms(), 'by', by, 'did', did,
    'what', what, 'why', why)
end
