-- Note a failure, after which the fleet waits.
-- ARGV: 3 the fence, 4 the wait, 5 the sealed failure, 6 whether the client was refused and not this target alone,
-- 7 whether the provider may count it, 8 the window of refused_limit.
local stored = alive(token)
finish(ARGV[3])
if ARGV[7] == '1' then
  redis.call('ZADD', refused, text(now), attempt(ARGV[3]))
  keep_until(refused, now + tonumber(ARGV[8]))
end
-- Else the fleet has a token that is newer than this failure.
if not stored or stored < tonumber(ARGV[3]) then
  local failure = ARGV[6] == '1' and client_failure or own_failure
  local known = known_failure(failure)
  local ends = now + tonumber(ARGV[4])
  redis.call('DEL', failure)
  redis.call('HSET', failure, 'sealed', ARGV[5], 'count', text((known and known.count or 0) + 1),
    'at', text(now), 'until', text(ends), 'refused', ARGV[7])
  keep_until(failure, ends + REMEMBERED)
end
announce()
return { text(now), 'done' }
