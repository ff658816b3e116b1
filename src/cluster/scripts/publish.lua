-- Publishes to a topic that remembers: gives the publication its place, keeps it, forgets what is too old or too much, and sends it.
-- KEYS: the state, the publications, their idempotency keys.
-- ARGV: channel, head and body of the message, idempotency key or '', an epoch if it needs one; what is kept: number, age in ms, bytes.
local size, age, max = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function text(number) return string.format('%.0f', number) end

local state = redis.call('HMGET', KEYS[1], 'epoch', 'last', 'ms', 'bytes')
local epoch, last, ms, bytes = state[1], tonumber(state[2]), tonumber(state[3]), tonumber(state[4])
if not epoch then
  redis.call('DEL', KEYS[2], KEYS[3])
  epoch, last, ms, bytes = ARGV[5], 0, 0, 0
end

local function trim()
  local count = redis.call('XLEN', KEYS[2])
  for _ = 1, 100 do -- the next publication goes on
    local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
    if not first then
      bytes = 0
      return
    end
    local at, offset = string.match(first[1], '(%d+)-(%d+)')
    if count <= size and bytes <= max and tonumber(at) > now - age then return end
    redis.call('XDEL', KEYS[2], first[1])
    count, bytes = count - 1, bytes - #first[2][4] - 128
    local key = first[2][6]
    if key and redis.call('HGET', KEYS[3], key) == offset then redis.call('HDEL', KEYS[3], key) end
  end
end

if ARGV[4] ~= '' then
  local counted = bytes
  trim()
  local before = redis.call('HGET', KEYS[3], ARGV[4])
  if before then
    -- Only then: where Redis has no memory left, nothing may be written that need not be.
    if bytes ~= counted then redis.call('HSET', KEYS[1], 'bytes', text(bytes)) end
    return {epoch, tonumber(before), -1}
  end
end
last, ms, bytes = last + 1, math.max(now, ms), bytes + #ARGV[3] + 128
redis.call('HSET', KEYS[1], 'epoch', epoch, 'last', text(last), 'ms', text(ms), 'bytes', text(bytes))
local id = text(ms) .. '-' .. text(last)
if ARGV[4] == '' then
  redis.call('XADD', KEYS[2], id, 'h', ARGV[2], 'm', ARGV[3])
else
  redis.call('XADD', KEYS[2], id, 'h', ARGV[2], 'm', ARGV[3], 'k', ARGV[4])
  redis.call('HSET', KEYS[3], ARGV[4], text(last))
end
local added = bytes
trim()
if bytes ~= added then redis.call('HSET', KEYS[1], 'bytes', text(bytes)) end
redis.call('PEXPIRE', KEYS[1], ARGV[7])
redis.call('PEXPIRE', KEYS[2], ARGV[7])
if ARGV[4] ~= '' then redis.call('PEXPIRE', KEYS[3], ARGV[7]) end
local receivers = redis.call('PUBLISH', ARGV[1], ARGV[2] .. epoch .. ' ' .. id .. '\n' .. ARGV[3])
return {epoch, last, receivers}
