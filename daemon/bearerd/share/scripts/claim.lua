-- Take the lock, or return why not.
-- ARGV: 3 have, 4 seen, 5 lease, 6 last (0 or 1), 7 changed (empty if not), 8 requested (0 or 1),
-- 9 and 10 count and window of refused_limit, then count and window of each rate limit.
local have, seen, lease = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local changed, requested, first_limit = tonumber(ARGV[7]), ARGV[8] == '1', 11

local stored = alive(token)
if stored and stored > have then
  return { text(now), 'stored', text(stored), redis.call('HGET', token, 'sealed') }
end
local holder, released = alive(lock)
if holder then
  return { text(now), 'busy', text(released - now) }
end

local is_last = ARGV[6] == '1' and not alive(last)
local of_client, own = known_failure(client_failure), known_failure(own_failure)
-- The answer if this failure still holds the daemon back.
local function failing(failure)
  if failure and failure.ends > now and not is_last and not (changed and failure.at <= now - changed) then
    local sealed = redis.call('HGET', failure.key, 'sealed')
    local whole = failure.key == client_failure and '1' or '0'
    return { text(now), 'failing', sealed, text(failure.ends - now), text(failure.count), whole }
  end
end
local failed = failing(of_client) or failing(own)
if failed then
  return failed
end

if not is_last then
  redis.call('ZREMRANGEBYSCORE', flights, '-inf', text(now - FORGOTTEN))
  local ago = now - tonumber(redis.call('GET', worked) or 0)
  local most = (of_client or ago > LATELY) and 1 or ago > JUST_NOW and FEW or math.huge
  if redis.call('ZCOUNT', flights, '(' .. text(now), '+inf') >= most then
    local first = redis.call('ZRANGE', flights, '(' .. text(now), '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
    return { text(now), 'busy', text(tonumber(first[2]) - now) }
  end
end

-- Until fewer than `allowed` entries are within the window; 0 if that is so now.
local function wait_for(key, window, allowed)
  if allowed == 0 then
    return window
  end
  redis.call('ZREMRANGEBYSCORE', key, '-inf', text(now - window))
  local count = redis.call('ZCARD', key)
  if count < allowed then
    return 0
  end
  local entry = redis.call('ZRANGE', key, count - allowed, count - allowed, 'WITHSCORES')
  return tonumber(entry[2]) + window - now
end

local governed = of_client ~= nil or (own ~= nil and own.refused == '1')
local refused_count, refused_window = tonumber(ARGV[9]), tonumber(ARGV[10])
if governed then
  -- One of them is reserved for changed credentials.
  local wait = wait_for(refused, refused_window, changed and refused_count or math.max(1, refused_count - 1))
  if wait > 0 then
    return { text(now), 'limited', 'refused_limit', text(wait) }
  end
end
local longest = 0
for rate = FIRST_RATE, #KEYS do
  local limit = first_limit + 2 * (rate - FIRST_RATE)
  local allowed = tonumber(ARGV[limit])
  if requested then
    allowed = math.floor(allowed / 2) -- so that a due renewal never waits because of requested ones
  end
  longest = math.max(longest, wait_for(KEYS[rate], tonumber(ARGV[limit + 1]), allowed))
end
if longest > 0 then
  return { text(now), 'limited', 'rate_limit', text(longest) }
end

local given = tonumber(redis.call('HGET', lock, 'fence') or 0)
local fence = math.max(stored or 0, given, seen, now - 1) + 1
local ends = now + lease
hold(fence, ends)
redis.call('ZADD', flights, text(ends), attempt(text(fence)))
keep_until(flights, ends + FORGOTTEN)
if is_last then
  redis.call('HSET', last, 'fence', text(fence), 'until', text(now + LAST_ONCE))
  redis.call('PEXPIRE', last, text(LAST_ONCE / 1000))
end
if governed then
  redis.call('ZADD', refused, text(now), attempt(text(fence)))
  keep_until(refused, now + refused_window)
end
for rate = FIRST_RATE, #KEYS do
  -- Until its reply, as if that came at the end of the lease.
  redis.call('ZADD', KEYS[rate], text(ends), attempt(text(fence)))
  keep_until(KEYS[rate], ends + tonumber(ARGV[first_limit + 2 * (rate - FIRST_RATE) + 1]))
end
return {
  text(now), 'granted', text(fence),
  text(own and own.count or 0), text(of_client and of_client.count or 0), governed and '1' or '0',
}
