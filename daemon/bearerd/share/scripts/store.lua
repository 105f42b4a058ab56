-- Keep a new token, announce it, free the lock and forget failures. A newer token stays, and is returned.
-- ARGV: 3 the fence, 4 for how long, 5 the sealed token.
local fence = tonumber(ARGV[3])
local stored = alive(token)
note_success(ARGV[3])
finish(ARGV[3])
if stored and stored > fence then
  announce()
  return { text(now), 'stored', text(stored), redis.call('HGET', token, 'sealed') }
end
if not stored or stored < fence then
  local ends = now + tonumber(ARGV[4])
  redis.call('DEL', token)
  redis.call('HSET', token, 'fence', ARGV[3], 'until', text(ends), 'sealed', ARGV[5])
  keep_until(token, ends)
  redis.call('DEL', own_failure, client_failure, last)
  announce()
end
return { text(now), 'done' }
