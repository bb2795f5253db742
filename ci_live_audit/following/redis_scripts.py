"""What a `RedisCheckpoint` has Redis do: each script takes effect as a whole."""

from __future__ import annotations

from ci_live_audit._redis import Script

__all__ = ["ADD", "BEAT", "CLAIM", "COMMIT", "LEAVE", "PARTS", "REPORT", "RESIGN"]

#: The keys, by the last part of their names.
PARTS = (
    *("workers", "numbers", "beaten", "scope", "open", "new", "back", "aside", "over"),
    *("orphans", "tried", "ttls", "own:", "seen:"),
)

# What was seen is ASCII, since a client may decode all that it receives. `own` and `seen` have the
# name of a process or a job behind them; as all keys they are in one slot of a cluster.
COMMON = """
local workers, numbers, beaten, scope, open, new, back, aside, over = unpack(KEYS)
local orphans, tried, ttls, own, seen = KEYS[10], KEYS[11], KEYS[12], KEYS[13], KEYS[14]
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
  redis.call('HDEL', ttls, worker)
  return theirs
end

local function renew(ttl)
  redis.call('HSET', ttls, me, ttl)
  redis.call('ZADD', workers, now + ttl, me)
end

-- Take what the dead had. If nobody was heard of for so long, Redis was away, or its clock has been
-- set: nobody is dead. Each has a time to live of its own, which may be longer.
local function bury_the_dead(ttl)
  local before = tonumber(redis.call('GET', beaten) or 0)
  if now - before > ttl or now < before then
    for _, worker in ipairs(redis.call('ZRANGE', workers, 0, -1)) do
      local theirs = tonumber(redis.call('HGET', ttls, worker) or ttl)
      redis.call('ZADD', workers, now + theirs, worker)
    end
  end
  redis.call('SET', beaten, now)
  for _, worker in ipairs(redis.call('ZRANGEBYSCORE', workers, '-inf', now)) do
    if worker ~= me then
      for _, id in ipairs(bury(worker)) do redis.call('SADD', orphans, id) end
    end
  end
end

-- Take an id from whoever has it.
local function take_away(id)
  for _, worker in ipairs(redis.call('ZRANGE', workers, 0, -1)) do
    redis.call('SREM', own .. worker, id)
  end
  redis.call('LREM', back, 0, id)
  redis.call('SREM', orphans, id)
  redis.call('ZREM', aside, id)
end
"""

ADD = Script(
    COMMON
    + """
for i = 2, #ARGV do
  local id = ARGV[i]
  if redis.call('ZREM', aside, id) == 1 then
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

renew(ttl)
bury_the_dead(ttl)

local all = redis.call('ZRANGE', workers, 0, -1)
if joins and #all == 1 then                -- what was laid aside is for the next run: this one
  for _, id in ipairs(redis.call('ZRANGE', aside, 0, -1)) do
    redis.call('SADD', open, id)
    redis.call('RPUSH', back, id)
  end
  redis.call('DEL', aside, tried)
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
        redis.call('ZADD', aside, now, id)
      else
        redis.call('DEL', seen .. id)
        local to = ({['end'] = over, give_up = tried})[action]
        if to then
          redis.call('ZADD', to, now, id)
          redis.call('ZREMRANGEBYSCORE', to, '-inf', now - tonumber(ARGV[3]))
        end
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

# What is in doubt, as the job of a stream is not known, is aside. It counts for a while, but does
# not take the last place, or nothing would ever go on.
CLAIM = Script(
    COMMON
    + """
if not redis.call('ZSCORE', workers, me) or is_late() then return {number, 'lost'} end
redis.call('HSET', numbers, me, number)
local places, once = tonumber(ARGV[3]), ARGV[4] == '1'
local doubts = redis.call('ZCOUNT', aside, now - tonumber(ARGV[5]), '+inf')
doubts = math.min(doubts, places - 1)
local reply = {number, 'ok', 0}
for i = 6, #ARGV, 2 do
  local id, claim = ARGV[i], ARGV[i + 1]
  local known = redis.call('GETRANGE', seen .. id, 0, #claim - 1) == claim
  local word = 'mine'
  if known then                            -- the reply was lost, or this process taken for dead
    take_away(id)
  elseif redis.call('SISMEMBER', open, id) == 1 then
    word = 'open'
  elseif redis.call('ZSCORE', over, id) or redis.call('ZSCORE', aside, id)
      or (once and redis.call('ZSCORE', tried, id)) then
    word = 'over'
  elseif reply[3] > 0 or redis.call('SCARD', open) + doubts >= places then
    word = 'full'
  end
  if word == 'mine' then
    redis.call('SADD', open, id)
    redis.call('SADD', own .. me, id)
    if not known then
      redis.call('SET', seen .. id, claim)
      reply[3] = 1                         -- one at a time
    end
  end
  reply[#reply + 1] = word
end
reply[3] = redis.call('SCARD', open)
return reply
"""
)

REPORT = Script(
    COMMON
    + """
local id, claim, job = ARGV[3], ARGV[4], ARGV[5]
local known = redis.call('GET', seen .. id) or ''
local is_own = string.sub(known, 1, #claim) == claim
if job == '' then
  if known == claim then
    redis.call('DEL', seen .. id)
    redis.call('SREM', open, id)
    take_away(id)
  end
  return {number}
end
local gone = redis.call('ZSCORE', over, id) or redis.call('ZSCORE', tried, id)
if known == '' and not gone then                       -- the store has lost it
  redis.call('SET', seen .. id, claim .. job)
elseif is_own and not string.find(known, job, #claim + 1, true) then
  redis.call('APPEND', seen .. id, job)
else
  return {number}
end
take_away(id)
redis.call('SADD', open, id)
redis.call('RPUSH', back, id)
return {number}
"""
)

RESIGN = Script(
    COMMON
    + """
local ttl, takes = tonumber(ARGV[3]), ARGV[4] == '1'
bury(me)
bury_the_dead(ttl)
local others, waiting = redis.call('ZCARD', workers), redis.call('LLEN', back)
local reply = {number, others, waiting}
if others == 0 and waiting > 0 and takes then
  renew(ttl)
  redis.call('HSET', numbers, me, number)
  for _ = 1, waiting do
    local id = redis.call('LPOP', back)
    redis.call('SREM', orphans, id)
    redis.call('SADD', own .. me, id)
    reply[#reply + 1] = id
    reply[#reply + 1] = redis.call('GET', seen .. id) or ''
  end
end
return reply
"""
)
