-- The beginning of every script about one target. redis_store.py documents the keys.
-- All times are microseconds of the server's Unix time: integers that Lua and sorted sets hold exactly.
-- ARGV: 1 the channel, 2 the message that announces a change of this target, 3 the fence or what `have` says.
local token, lock, last = KEYS[1], KEYS[2], KEYS[3]
local own_failure, client_failure = KEYS[4], KEYS[5]
local flights, worked, refused = KEYS[6], KEYS[7], KEYS[8]
local FIRST_RATE = 9 -- every further key is a rate limit
local SECOND = 1000000
local REMEMBERED = 7200 * SECOND -- a failure's count, after its wait: twice the longest wait
local LAST_ONCE = 30 * SECOND -- last attempts come 15 to 30 s before the expiry
local JUST_NOW, LATELY, FEW = 1 * SECOND, 60 * SECOND, 4 -- as in admission/breaker.py
local FORGOTTEN = 600 * SECOND -- after its lease, an attempt in flight: longer than any grant takes

local time = redis.call('TIME')
local now = tonumber(time[1]) * SECOND + tonumber(time[2])

-- An integer as text. tostring() has 14 digits, and a time has 16.
local function text(number)
  return string.format('%.0f', number)
end

-- Every key ends by itself. One with several entries ends with the last of them.
local function keep_until(key, at)
  local milliseconds = math.ceil((at - now) / 1000) + 1
  if redis.call('PTTL', key) < milliseconds then
    redis.call('PEXPIRE', key, text(milliseconds))
  end
end

-- The fence of a hash with `fence` and `until` (a token, a lock), and its end. Nothing if it has ended.
local function alive(key)
  local got = redis.call('HMGET', key, 'fence', 'until')
  if got[1] and tonumber(got[2]) > now then
    return tonumber(got[1]), tonumber(got[2])
  end
end

-- A failure whose count is remembered.
local function known_failure(key)
  local got = redis.call('HMGET', key, 'count', 'at', 'until', 'refused')
  if got[1] and tonumber(got[3]) + REMEMBERED > now then
    return { key = key, count = tonumber(got[1]), at = tonumber(got[2]), ends = tonumber(got[3]), refused = got[4] }
  end
end

local function hold(fence, ends)
  redis.call('DEL', lock)
  redis.call('HSET', lock, 'fence', text(fence), 'until', text(ends))
  keep_until(lock, ends + FORGOTTEN)
end

-- An attempt as a member of a sorted set: two targets may have the same fence.
local function attempt(fence)
  return token .. ' ' .. fence
end

-- The attempt ended: it is not in flight, its lock is free, and its rate limits count from now.
local function finish(fence)
  redis.call('ZREM', flights, attempt(fence))
  redis.call('ZREM', refused, attempt(fence))
  for rate = FIRST_RATE, #KEYS do
    if redis.call('ZSCORE', KEYS[rate], attempt(fence)) then
      redis.call('ZADD', KEYS[rate], text(now), attempt(fence))
    end
  end
  if redis.call('HGET', lock, 'fence') == fence then
    -- It is kept for a while, so that a clock that is set back does not give its fence once more.
    redis.call('HSET', lock, 'until', text(now))
  end
end

-- An attempt of the client got a token, if this is the end of an attempt.
local function note_success(fence)
  if redis.call('ZSCORE', flights, attempt(fence)) then
    redis.call('SET', worked, text(now))
    keep_until(worked, now + LATELY)
  end
end

local function announce()
  redis.call('PUBLISH', ARGV[1], ARGV[2])
end
