-- The fences of many tokens, 0 for those that are not stored. It also writes, so that a server that cannot be written
-- (a replica, one that is full) is noticed before a claim fails.
-- KEYS: 1 what is written, then the tokens.
redis.call('SET', KEYS[1], '1', 'EX', 60)
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local found = { string.format('%.0f', now), 'fences' }
for key = 2, #KEYS do
  local got = redis.call('HMGET', KEYS[key], 'fence', 'until')
  found[key + 1] = got[1] and tonumber(got[2]) > now and got[1] or '0'
end
return found
