-- Remove everything about one target and its client, after a check.
redis.call('DEL', unpack(KEYS))
return { text(now), 'done' }
