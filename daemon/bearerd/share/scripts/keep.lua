-- The provider returned the same token: no other daemon asks for a while.
-- ARGV: 3 the fence, 4 for how long.
local fence = tonumber(ARGV[3])
local mine = alive(lock) == fence
note_success(ARGV[3])
finish(ARGV[3])
if mine then
  redis.call('DEL', own_failure, client_failure)
  hold(fence, now + tonumber(ARGV[4]))
end
announce()
return { text(now), 'done' }
