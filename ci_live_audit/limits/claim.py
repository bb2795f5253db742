"""The claim of a slot by one of several processes, decided by a script in Redis.

Processes ask when they expect their slot to open. The script grants it if it is open by the clock
of the server, and nobody who still waits came before; otherwise it says when to ask again. So a
slot is never given away ahead: somebody urgent goes first, and a process that dies takes none with
it. What is granted is also bounded by a log of the last grants, as in `LocalRateLimiter`.

Lateness is caught up, idleness is not. If nothing is known, because Redis came back empty, the
grants of the last second are not known either, and the first slot opens a whole one later.
"""

from __future__ import annotations

from ci_live_audit._redis import Script
from ci_live_audit.limits.local import LocalRateLimiter
from ci_live_audit.limits.pace import Pace, Patience

__all__ = ["CLAIM", "LATELY", "LEAVE", "keys"]

#: Seconds for which a process counts as one of those that share, after it was last seen.
LATELY = 30

# Times are microseconds, by the server's clock; `pace` is a share of the rate.
CONSTANTS = f"""
local LATELY, LONGEST, TTL = {LATELY}, {Patience.LONGEST * 1e6}, 3600000
local MARGIN, CATCH_UP = {LocalRateLimiter.MARGIN * 1e6}, {LocalRateLimiter.CATCH_UP * 1e6}
-- A waiter that is late by so much is passed over, and removed.
local GRACE, GONE = 25000, 5000000
-- If there was no grant for so long, the others were without Redis, too.
local QUIET = 300000
local ROOM, DECREASE, STEADY = {LocalRateLimiter.ROOM}, {Pace.DECREASE}, {Pace.STEADY}
local GROWTH, FLOORS = {Pace.GROWTH}, {{{", ".join(map(str, Pace.FLOORS))}}}
local ASSUMED, CROWDED, MEMORY = {Pace.ASSUMED}, {Pace.CROWDED}, {Pace.MEMORY}
"""

CLAIM = Script(
    CONSTANTS
    + """
local state, log, waiters, due, present = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
-- Who asks; for which lane: 0, 1, or -1 for none; does somebody wait in the other lane, and will
-- somebody want another slot of this one; until when is this worth anything; at most which rate.
local me, lane, other, more = ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1', ARGV[5] == '1'
local before, own = tonumber(ARGV[6]), tonumber(ARGV[7])
-- For how long to hold everybody; for how long at most after a refusal; is it time to count who is
-- present; for how long to hold if this process was without Redis; the id of the slot.
local hold, refused, census = tonumber(ARGV[8]), tonumber(ARGV[9]), ARGV[10] == '1'
local settle, slot = tonumber(ARGV[11]), ARGV[12]
-- How many slots at most. From there on: slots of this process by id, and their age, or -1 if they
-- were not used.
local want, FIRST = tonumber(ARGV[13]), 14

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if before > 0 and now > before then                   -- from before Redis or its caller stopped
  return {tonumber(ARGV[1]), -1, 0, 0, 0, 0, now, 0, 0}
end

local known = redis.call('HMGET', state, 'next', 'held', 'rate', 'top', 'lowered', 'share', 'step')
local rate, rank = math.min(tonumber(known[3] or own), own), 0
if census then
  rate = own
  redis.call('HSET', present, me, time[1] .. ' ' .. ARGV[7])
  local all = redis.call('HGETALL', present)
  for i = 1, #all, 2 do
    local seen, theirs = string.match(all[i + 1], '(%S+) (%S+)')
    if math.abs(time[1] - seen) > LATELY then
      redis.call('HDEL', present, all[i])
    else
      rate = math.min(rate, tonumber(theirs))
      if all[i] < me then rank = rank + 1 end
    end
  end
end
local count, even = math.max(1, math.floor(math.min(rate, 10000))), 1e6 / rate
local window = count * even + MARGIN

local next_ = tonumber(known[1] or now + even)
local held = tonumber(known[2] or 0)
local newest = tonumber(redis.call('ZRANGE', log, -1, -1, 'WITHSCORES')[2] or 0)
if newest > now + 1000 or next_ > now + math.max(window, 11 * even) then  -- the clock went back
  redis.call('DEL', log, waiters, due)
  next_, held, newest = now + window, math.min(held, now), 0
end

-- As in Pace.
local top, lowered = tonumber(known[4] or 1), math.min(tonumber(known[5] or 0), now)
local share, step = tonumber(known[6] or ASSUMED), tonumber(known[7] or 1)
local function pace()
  local steady = (now - lowered) / 1e6 - STEADY
  return math.min(math.max(top + GROWTH * steady ^ 3, FLOORS[step]), 1)
end

if settle > 0 and newest < now - QUIET then hold = math.max(hold, settle) end
for i = FIRST, #ARGV, 2 do
  local age = tonumber(ARGV[i + 1])
  if age >= 0 then
    redis.call('ZADD', log, now - age, ARGV[i])
  elseif redis.call('ZREM', log, ARGV[i]) == 1 then
    next_ = next_ - even / pace()
  end
end
if refused > 0 then
  local after = string.format('(%.0f', now - 1e6)
  local recent = redis.call('ZRANGEBYSCORE', log, after, '+inf', 'WITHSCORES', 'LIMIT', 0, ROOM + 1)
  if #recent > 2 * ROOM then
    refused = recent[2 * ROOM] + 1e6 - now
    if now >= held then
      local reached = pace()
      if reached == 1 then share, step = ASSUMED, 1 end
      share = share + 1 / MEMORY
      if share > CROWDED and step < #FLOORS then share, step = ASSUMED, step + 1 end
      top, lowered = DECREASE * reached, now
    end
  end
end
hold = math.max(hold, refused)
if hold > 0 then held = math.max(held, now + hold) end
held = math.min(held, now + LONGEST)

local gap = even / pace()
local function withdraw(waiter)
  redis.call('ZREM', waiters, waiter)
  redis.call('HDEL', due, waiter)
end
for each = 0, 1 do
  if each ~= lane and not other then withdraw(me .. ':' .. each) end
end

local granted, wait = 0, LONGEST
if lane >= 0 then
  local waiter, place = me .. ':' .. lane, lane * 4e15 + now
  local function opens()
    local oldest = redis.call('ZRANGE', log, -count, -count, 'WITHSCORES')[2]
    return math.max(next_, held, tonumber(oldest or 0) + window)
  end
  local function ahead()
    local number = 0
    for _, one in ipairs(redis.call('ZRANGE', waiters, 0, -1)) do
      if one == waiter then break end
      local when = tonumber(redis.call('HGET', due, one) or 0)
      if when + GONE < now then
        withdraw(one)
      elseif when + GRACE >= now then
        number = number + 1
      end
    end
    return number
  end
  redis.call('ZADD', waiters, 'NX', place, waiter)
  local first = ahead()
  while granted < want and first == 0 and opens() <= now do
    granted = granted + 1
    if next_ < now - CATCH_UP then next_ = now end
    next_ = next_ + gap
    share = share - share / MEMORY
    redis.call('ZADD', log, now, slot .. ':' .. granted)
  end
  if granted > 0 then
    redis.call('ZREMRANGEBYRANK', log, 0, -count - 1)
    if more then
      redis.call('ZADD', waiters, place, waiter)
      first = ahead()
    else
      withdraw(waiter)
    end
  end
  if more or granted == 0 then
    wait = math.max(opens(), now + (first > 0 and 1000 or 0)) + first * gap - now
    redis.call('HSET', due, waiter, now + wait)
  end
end
redis.call('HSET', state, 'next', next_, 'held', held, 'rate', rate,
  'top', top, 'lowered', lowered, 'share', share, 'step', step)
if census then
  for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, TTL) end
end
return {tonumber(ARGV[1]), granted, math.ceil(wait), math.ceil(math.max(0, held - now)),
  math.floor(pace() * rate * 1e6), math.floor(rate * 1e6), now,
  redis.call('HLEN', present), rank}
"""
)

#: A process ends: nobody waits for it, and nobody leaves it a share.
LEAVE = Script(
    """
redis.call('HDEL', KEYS[5], ARGV[2])
redis.call('ZREM', KEYS[3], ARGV[2] .. ':0', ARGV[2] .. ':1')
redis.call('HDEL', KEYS[4], ARGV[2] .. ':0', ARGV[2] .. ':1')
return {tonumber(ARGV[1])}
"""
)


def keys(name: str) -> list[str]:
    """Return the keys of a quota; they are in one slot of a cluster."""
    return [f"ci_live_audit:{{{name}}}:{part}" for part in ("state", "log", "waiters", "due", "by")]
