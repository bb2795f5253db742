"""What a `RedisCheckpoint` has Redis do: each script takes effect as a whole."""

from __future__ import annotations

from ci_live_audit._redis import Script

__all__ = ["ADD", "BEAT", "COMMIT", "LEAVE", "PARTS"]

#: The keys, by the last part of their names.
PARTS = (
    *("workers", "numbers", "beaten", "scope", "open", "new", "back", "aside", "over"),
    *("orphans", "own:", "seen:"),
)

# What was seen is ASCII, since a client may decode all that it receives. `own` and `seen` have the
# name of a process or a job behind them; as all keys they are in one slot of a cluster.
COMMON = """
local workers, numbers, beaten, scope, open, new, back, aside, over = unpack(KEYS)
local orphans, own, seen = KEYS[10], KEYS[11], KEYS[12]
local number, me = tonumber(ARGV[1]), ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- A call that was given up may be executed after those that followed it.
local function is_late()
  return number < tonumber(redis.call('HGET', numbers, me) or 0)
end

local function bury(worker)
  local theirs = redis.call('SMEMBERS', own .. worker)
  for _, id in ipairs(theirs) do redis.call('LPUSH', back, id) end
  redis.call('DEL', own .. worker)
  redis.call('ZREM', workers, worker)
  redis.call('HDEL', numbers, worker)
  return theirs
end
"""

ADD = Script(
    COMMON
    + """
for i = 2, #ARGV do
  local id = ARGV[i]
  if redis.call('SREM', aside, id) == 1 then
    redis.call('SADD', open, id)
    redis.call('RPUSH', back, id)
  elseif not redis.call('ZSCORE', over, id) and redis.call('SADD', open, id) == 1 then
    redis.call('RPUSH', new, id)
  end
end
return {number}
"""
)

BEAT = Script(
    COMMON
    + """
local ttl, joins = tonumber(ARGV[3]), ARGV[4] == '1'
local want, held = tonumber(ARGV[5]), tonumber(ARGV[6])
local about, room = redis.call('GET', scope), tonumber(ARGV[8])
if about and about ~= ARGV[7] then return {number, 'scope', about} end
if not joins and not redis.call('ZSCORE', workers, me) then
  return {number, 'lost', about and 0 or 1}
end
if is_late() then return {number, 'late'} end
if not about then redis.call('SET', scope, ARGV[7]) end
redis.call('HSET', numbers, me, number)

-- If nobody was heard of for so long, Redis was away, or its clock has been set: nobody is dead.
local before = tonumber(redis.call('GET', beaten) or 0)
if now - before > ttl or now < before then
  for _, worker in ipairs(redis.call('ZRANGE', workers, 0, -1)) do
    redis.call('ZADD', workers, now + ttl, worker)
  end
end
redis.call('SET', beaten, now)
redis.call('ZADD', workers, now + ttl, me)
for _, worker in ipairs(redis.call('ZRANGEBYSCORE', workers, '-inf', now)) do
  for _, id in ipairs(bury(worker)) do redis.call('SADD', orphans, id) end
end

local all = redis.call('ZRANGE', workers, 0, -1)
if joins and #all == 1 then                -- what was laid aside is for the next run: this one
  for _, id in ipairs(redis.call('SMEMBERS', aside)) do
    redis.call('SADD', open, id)
    redis.call('RPUSH', back, id)
  end
  redis.call('DEL', aside)
end
local total, rank = redis.call('SCARD', open), 0
for _, worker in ipairs(all) do if worker < me then rank = rank + 1 end end
local share = math.floor(total / #all) + (rank < total % #all and 1 or 0)
local have = redis.call('SCARD', own .. me)

local reply = {number, 'ok', math.max(0, have - share), total, 0, -1, 0}
if have ~= held then                       -- the reply to an earlier beat was lost
  local mine = redis.call('SMEMBERS', own .. me)
  reply[6] = #mine
  for _, id in ipairs(mine) do reply[#reply + 1] = id end
end
for _ = 1, math.min(want, share - have) do
  local id = redis.call('LPOP', back)
  if id then
    reply[5] = reply[5] + 1
    reply[7] = reply[7] + redis.call('SREM', orphans, id)
  else
    id = redis.call('LPOP', new)
  end
  if not id then break end
  redis.call('SADD', own .. me, id)
  local known = redis.call('GET', seen .. id) or ''
  reply[#reply + 1] = id
  reply[#reply + 1] = known
  room = room - #id - #known
  if room < 0 then break end
end
return reply
"""
)

COMMIT = Script(
    COMMON
    + """
if not redis.call('ZSCORE', workers, me) or is_late() then return {number, 'lost'} end
redis.call('HSET', numbers, me, number)
local reply = {number, 'ok', 0}
for i = 4, #ARGV, 3 do
  local id, action, new_ = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local noted = redis.call('SISMEMBER', own .. me, id)
  if noted == 1 then
    if #new_ > 0 then redis.call('APPEND', seen .. id, new_) end
    if action ~= 'keep' then redis.call('SREM', own .. me, id) end
    if action == 'release' then
      redis.call('LPUSH', back, id)
    elseif action ~= 'keep' then
      redis.call('SREM', open, id)
      if action == 'aside' then
        redis.call('SADD', aside, id)
      else
        redis.call('DEL', seen .. id)
        redis.call('ZADD', over, now, id)
        redis.call('ZREMRANGEBYSCORE', over, '-inf', now - tonumber(ARGV[3]))
      end
    end
  end
  reply[#reply + 1] = noted
end
reply[3] = redis.call('SCARD', open)
return reply
"""
)

LEAVE = Script(COMMON + "if not is_late() then bury(me) end return {number}")
