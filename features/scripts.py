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
local out, newest = {}, nil
for i = 3, #ARGV, 2 do
  if redis.call('SISMEMBER', KEYS[3], ARGV[i]) == 1 or redis.call('SADD', KEYS[2], ARGV[i]) == 0 then
    out[#out + 1] = false
  else
    newest = redis.call('XADD', KEYS[1], '*', 'e', ARGV[i + 1])
    out[#out + 1] = newest
  end
end
redis.call('EXPIRE', KEYS[2], ARGV[1])
if not newest then
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then newest = info[i + 1] end
  end
end
out[#out + 1] = newest
return out
"""
"""Stream ids of what was accepted, null for what is a duplicate, and the stream's newest id at the end."""

APPLY = b"""
-- KEYS: stream, then for each user: state, entity hash.
-- ARGV: group, n, n fields of the hash, then for each user: version the state must have ('' none), new state ('' as it
--       is), n x bytes that the field must hold ('' none), m, m stream ids, k, k x field or value.
local fields = tonumber(ARGV[2])
local at = 3 + fields
local out, done = {}, {}
for k = 2, #KEYS, 2 do
  local ids = at + 2 + fields
  local values = ids + tonumber(ARGV[ids]) + 1
  local count = tonumber(ARGV[values])
  local ok = redis.call('GETRANGE', KEYS[k], 0, 7) == ARGV[at]
  if ok and fields > 0 then
    local held = redis.call('HMGET', KEYS[k + 1], unpack(ARGV, 3, 2 + fields))
    for i = 1, fields do ok = ok and (held[i] or '') == ARGV[at + 1 + i] end
  end
  if ok then
    if ARGV[at + 1] ~= '' then redis.call('SET', KEYS[k], ARGV[at + 1]) end
    if count > 0 then redis.call('HSET', KEYS[k + 1], unpack(ARGV, values + 1, values + count)) end
    for i = ids + 1, values - 1 do done[#done + 1] = ARGV[i] end
  end
  out[#out + 1] = ok and 1 or 0
  at = values + count + 1
end
if #done > 0 then
  redis.call('XACK', KEYS[1], ARGV[1], unpack(done))
  redis.call('XDEL', KEYS[1], unpack(done))
end
return out
"""
"""For each user 1: state and features are written and the events that they hold are done with; 0: somebody wrote in
between, and nothing is changed."""

TIDY = b"""
-- KEYS: stream. ARGV: group, the consumer that leaves ('' nobody), milliseconds without a sign after which one is dead.
local out = 0
for _, one in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local its = {}
  for i = 1, #one, 2 do its[one[i]] = one[i + 1] end
  if its.pending == 0 and (its.name == ARGV[2] or its.idle > tonumber(ARGV[3])) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], its.name)
    out = out + 1
  end
end
return out
"""
"""Removes names that nobody answers to. One with entries stays until those are claimed: they would be lost with it."""

TURN = b"""
-- A time of the server, in microseconds, that is later than any in the sorted set KEYS[1], whatever its clock does.
-- What has been there for ten minutes goes: who has not looked for so long reads everything anew.
local now = redis.call('TIME')
local turn = now[1] * 1000000 + now[2]
local last = tonumber(redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2] or 0)
if last >= turn then turn = last + 1 end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', turn - 600000000))
"""

ALL_COUNTED = (
    TURN
    + b"""
redis.call('ZADD', KEYS[1], string.format('%.0f', turn), '')
return 1
"""
)
"""Tells those who follow items' counts (KEYS: items counted of late) that all may be others."""

MICROS_OF = b"""
local function micros_of(stamp) -- what is no timestamp is older than any
  local bytes = {string.byte(stamp, 1, -1)}
  local seconds, nanos, tag, value, shift = 0, 0, 0, 0, 1
  for i = 1, #bytes do
    if tag == 0 then
      tag, value, shift = bytes[i], 0, 1
    else
      value = value + (bytes[i] % 128) * shift
      shift = shift * 128
      if bytes[i] < 128 then
        if tag == 8 then seconds = value else nanos = value end
        tag = 0
      end
    end
  end
  return seconds * 1000000 + math.floor(nanos / 1000)
end
"""
"""Of a serialized Timestamp."""

POPULARITY = (
    TURN
    + MICROS_OF
    + b"""
-- KEYS: items counted of late, then for each item its events, its purchases, its entity hash.
-- ARGV: field of the view's timestamp, (field, which of the two sets, window in microseconds) x 5, then for each item
--       its id, n, n x (time in microseconds, member, '1' for a purchase).
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
local at = 17
for k = 2, #KEYS, 3 do
  local id = ARGV[at]
  at = at + 1
  for i = 1, tonumber(ARGV[at]) do
    local time, member = ARGV[at + 1], ARGV[at + 2]
    redis.call('ZADD', KEYS[k], time, member)
    if ARGV[at + 3] == '1' then redis.call('ZADD', KEYS[k + 1], time, member) end
    at = at + 3
  end
  at = at + 1
  local newest = tonumber(redis.call('ZRANGE', KEYS[k], -1, -1, 'WITHSCORES')[2])
  if newest % 16 == 0 then -- now and then is enough: what is older is in no window
    local old = string.format('%.0f', newest - DAY30)
    redis.call('ZREMRANGEBYSCORE', KEYS[k], '-inf', old)
    redis.call('ZREMRANGEBYSCORE', KEYS[k + 1], '-inf', old)
  end
  local there = redis.call('HGET', KEYS[k + 2], ARGV[1])
  if not there or micros_of(there) <= newest then
    local row = {ARGV[1], stamp(newest)}
    local wider, of
    for f = 2, 16, 3 do
      -- From the widest window to the narrowest: where nothing is in one, nothing is in the next.
      if of ~= ARGV[f + 1] then wider, of = 1, ARGV[f + 1] end
      if wider > 0 then
        local since = '(' .. string.format('%.0f', newest - tonumber(ARGV[f + 2]))
        wider = redis.call('ZCOUNT', of == '1' and KEYS[k + 1] or KEYS[k], since, '+inf')
      end
      row[#row + 1] = ARGV[f]
      row[#row + 1] = ' ' .. varint(wider)
    end
    redis.call('HSET', KEYS[k + 2], unpack(row))
    redis.call('ZADD', KEYS[1], string.format('%.0f', turn), id)
    turn = turn + 1
  end
end
return 1
"""
)
"""An item's events and purchases in windows that end at its newest event. Adding a member twice adds it once.
What is counted anew is told to those who follow it."""

PUSH = (
    MICROS_OF
    + b"""
-- KEYS: for each row its entity's hash. ARGV: seconds that a hash lives ('0' for ever), field of the view's timestamp,
--       then for each row its time in microseconds, its timestamp, k, k x field or value.
local at = 3
local written = 0
for i = 1, #KEYS do
  local count = tonumber(ARGV[at + 2])
  local there = redis.call('HGET', KEYS[i], ARGV[2])
  if not there or micros_of(there) < tonumber(ARGV[at]) then
    redis.call('HSET', KEYS[i], ARGV[2], ARGV[at + 1], unpack(ARGV, at + 3, at + 2 + count))
    if ARGV[1] ~= '0' then redis.call('EXPIRE', KEYS[i], ARGV[1]) end
    written = written + 1
  end
  at = at + 3 + count
end
return written
"""
)
"""How many rows are written; the others are not newer than what is there."""
