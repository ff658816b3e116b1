-- What a topic remembers behind what a node has of it already, in order; not more than goes together.
-- KEYS: the state, the publications, their idempotency keys.
-- ARGV: an epoch if it needs one, age in ms; what the node has: epoch or '', time, offset; what goes together: number, bytes.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local state = redis.call('HMGET', KEYS[1], 'epoch', 'last', 'ms')
local epoch, last, ms = state[1], tonumber(state[2]), tonumber(state[3])
local offset, mine = tonumber(ARGV[5]), ARGV[4] .. '-' .. ARGV[5]
local function behind(id)
  local at, number = string.match(id, '(%d+)-(%d+)')
  return at .. '-' .. string.format('%.0f', tonumber(number) + 1)
end

-- Whether the node has what was never here: Redis has lost some of it, and given its place to another one, or will.
local function differs()
  if offset == 0 then return false end
  if offset >= last then return offset > last or tonumber(ARGV[4]) ~= ms end
  local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
  local is_kept = first and tonumber(string.match(first[1], '-(%d+)')) <= offset
  return is_kept and #redis.call('XRANGE', KEYS[2], mine, mine) == 0
end

if not epoch or (epoch == ARGV[3] and differs()) then
  epoch, last, ms = ARGV[1], 0, 0
  -- Where it takes nothing that is new, the first publication gives it another epoch. What nothing is published to is not kept long.
  redis.pcall('DEL', KEYS[1], KEYS[2], KEYS[3])
  redis.pcall('HSET', KEYS[1], 'epoch', epoch, 'last', '0', 'ms', '0', 'bytes', '0')
  redis.pcall('PEXPIRE', KEYS[1], math.min(tonumber(ARGV[2]), 60000))
end

local entries, bytes, from = {}, 0, '-'
if epoch == ARGV[3] and offset > 0 then from = behind(mine) end
while #entries < tonumber(ARGV[6]) and bytes < tonumber(ARGV[7]) do
  local entry = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', 1)[1]
  if not entry then return {epoch, last, ms, now, 0, entries} end
  entries[#entries + 1] = entry
  bytes, from = bytes + #entry[2][4], behind(entry[1])
end
return {epoch, last, ms, now, 1, entries}
