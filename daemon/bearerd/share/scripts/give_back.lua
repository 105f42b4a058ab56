-- Nothing was sent: free the lock, and take back what `claim` counted.
-- ARGV: 3 the fence.
finish(ARGV[3])
for rate = FIRST_RATE, #KEYS do
  redis.call('ZREM', KEYS[rate], attempt(ARGV[3]))
end
if redis.call('HGET', last, 'fence') == ARGV[3] then
  redis.call('DEL', last)
end
announce()
return { text(now), 'done' }
