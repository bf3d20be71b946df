"""What must happen in Redis all at once or not at all, as Lua scripts (https://redis.io/docs/latest/develop/programmability/).

A script is atomic for every other client, so a crash of ours lies before it or after it, never within.
"""

from __future__ import annotations

ACCEPT = b"""
-- KEYS: stream, seen in this period, seen in the last one.
-- ARGV: lifetime of seen (s), most entries, (event id, entry)...
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[2]) then
  return redis.error_reply('BACKLOG the event stream is full')
end
local out = {}
for i = 3, #ARGV, 2 do
  if redis.call('SISMEMBER', KEYS[3], ARGV[i]) == 1 or redis.call('SADD', KEYS[2], ARGV[i]) == 0 then
    out[#out + 1] = false
  else
    out[#out + 1] = redis.call('XADD', KEYS[1], '*', 'e', ARGV[i + 1])
  end
end
redis.call('EXPIRE', KEYS[2], ARGV[1])
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then out[#out + 1] = info[i + 1] end
end
return out
"""
"""Stream ids of what was accepted, null for what is a duplicate, and the stream's newest id at the end."""

APPLY = b"""
-- KEYS: user state, entity hash, stream.
-- ARGV: version the state must have ('' none), new state, group, n, n x (field, bytes it must hold, '' none),
--       m, m stream ids, (field, value)...
if redis.call('GETRANGE', KEYS[1], 0, 7) ~= ARGV[1] then return 0 end
local at = 5
for i = 1, tonumber(ARGV[4]) do
  if (redis.call('HGET', KEYS[2], ARGV[at]) or '') ~= ARGV[at + 1] then return 0 end
  at = at + 2
end
local ids = {}
for i = 1, tonumber(ARGV[at]) do ids[i] = ARGV[at + i] end
at = at + #ids + 1
if ARGV[2] ~= '' then redis.call('SET', KEYS[1], ARGV[2]) end
if at <= #ARGV then redis.call('HSET', KEYS[2], unpack(ARGV, at)) end
if #ids > 0 then
  redis.call('XACK', KEYS[3], ARGV[3], unpack(ids))
  redis.call('XDEL', KEYS[3], unpack(ids))
end
return 1
"""
"""1: state and features are written and the events that they hold are done with; 0: somebody wrote in between."""

POPULARITY = b"""
-- KEYS: for each item its events, its purchases, its entity hash.
-- ARGV: field of the view's timestamp, (field, which of the two sets, window in microseconds) x 5, then for each item
--       n, n x (time in microseconds, member, '1' for a purchase).
local DAY30 = 2592000000000
local function varint(n)
  local out = {}
  while n > 127 do out[#out + 1] = string.char(n % 128 + 128); n = math.floor(n / 128) end
  out[#out + 1] = string.char(n)
  return table.concat(out)
end
local function stamp(us)
  local seconds, micros = math.floor(us / 1000000), us % 1000000
  local out = seconds > 0 and '\\8' .. varint(seconds) or ''
  return micros > 0 and out .. '\\16' .. varint(micros * 1000) or out
end
local function seconds_of(bytes)
  local function read(at)
    local value, shift = 0, 1
    while true do
      local b = string.byte(bytes, at)
      value = value + (b % 128) * shift
      shift = shift * 128
      at = at + 1
      if b < 128 then return value, at end
    end
  end
  local seconds, nanos, at = 0, 0, 1
  while at <= #bytes do
    local tag, value = string.byte(bytes, at), 0
    value, at = read(at + 1)
    if tag == 8 then seconds = value else nanos = value end
  end
  return seconds * 1000000 + math.floor(nanos / 1000)
end
local at = 17
for k = 1, #KEYS, 3 do
  for i = 1, tonumber(ARGV[at]) do
    local time, member = ARGV[at + 1], ARGV[at + 2]
    redis.call('ZADD', KEYS[k], time, member)
    if ARGV[at + 3] == '1' then redis.call('ZADD', KEYS[k + 1], time, member) end
    at = at + 3
  end
  at = at + 1
  local newest = tonumber(redis.call('ZRANGE', KEYS[k], -1, -1, 'WITHSCORES')[2])
  local old = string.format('%.0f', newest - DAY30)
  redis.call('ZREMRANGEBYSCORE', KEYS[k], '-inf', old)
  redis.call('ZREMRANGEBYSCORE', KEYS[k + 1], '-inf', old)
  local there = redis.call('HGET', KEYS[k + 2], ARGV[1])
  if not there or seconds_of(there) <= newest then
    local row = {ARGV[1], stamp(newest)}
    for f = 2, 16, 3 do
      local since = '(' .. string.format('%.0f', newest - tonumber(ARGV[f + 2]))
      local count = redis.call('ZCOUNT', ARGV[f + 1] == '1' and KEYS[k + 1] or KEYS[k], since, '+inf')
      row[#row + 1] = ARGV[f]
      row[#row + 1] = ' ' .. varint(count)
    end
    redis.call('HSET', KEYS[k + 2], unpack(row))
  end
end
return 1
"""
"""An item's events and purchases in windows that end at its newest event. Adding a member twice adds it once."""
