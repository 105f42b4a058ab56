-- The fences of many tokens, 0 for those that are not stored. It also writes, so that a server that cannot be written
-- (a replica, one that is full) is noticed before a claim fails.
-- KEYS: 1 what is written, 2 what a cluster keeps apart from it, then the tokens. ARGV: 1 the channel.
if redis.acl_check_cmd then -- since Redis 7.0
  -- All that other scripts need: one that is refused a command after its first ones has done half of its work.
  local key = KEYS[1]
  for _, command in ipairs({
    { 'PUBLISH', ARGV[1], '' }, { 'GET', key }, { 'DEL', key }, { 'HGET', key, '' }, { 'HSET', key, '', '' },
    { 'HMGET', key, '' }, { 'PEXPIRE', key, '1' }, { 'PTTL', key }, { 'ZADD', key, '1', '' }, { 'ZCARD', key },
    { 'ZCOUNT', key, '0', '1' }, { 'ZRANGE', key, '0', '1' }, { 'ZREM', key, '' },
    { 'ZREMRANGEBYSCORE', key, '0', '1' }, { 'ZSCORE', key, '' },
  }) do
    if not redis.acl_check_cmd(unpack(command)) then
      return redis.error_reply('NOPERM a command or the channel is not allowed')
    end
  end
end
redis.call('SET', KEYS[1], '1', 'EX', 60)
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local found = { string.format('%.0f', now), 'fences' }
for key = 3, #KEYS do
  local got = redis.call('HMGET', KEYS[key], 'fence', 'until')
  found[key] = got[1] and tonumber(got[2]) > now and got[1] or '0'
end
return found
