-- The token that is stored.
local stored = alive(token)
if stored then
  return { text(now), 'stored', text(stored), redis.call('HGET', token, 'sealed') }
end
return { text(now), 'done' }
