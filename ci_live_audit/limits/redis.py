"""One quota for several processes, over Redis; needs the extra ``redis``.

In each process one task, the dispatcher, claims slots for all that wait. Callers wait for a future,
so that cancelling one touches no connection. Between two claims the dispatcher sleeps until the
slot is expected to open, or somebody more urgent comes.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Literal, Self, get_args

from ci_live_audit._checks import above_zero, text
from ci_live_audit._loop import cancel_and_wait, own_loop
from ci_live_audit._redis import RedisRefused, RedisUnavailable, Server
from ci_live_audit.errors import ConfigurationError, TransportError
from ci_live_audit.limits.claimant import Claimant
from ci_live_audit.limits.lanes import BULK, CALLS, NOBODY, Lanes
from ci_live_audit.limits.limiter import HOLD, quota
from ci_live_audit.limits.local import LocalRateLimiter
from ci_live_audit.limits.pace import Pace, Patience
from ci_live_audit.limits.share import Share

if TYPE_CHECKING:
    from redis.asyncio import Redis, RedisCluster

__all__ = ["Outage", "RedisRateLimiter"]

logger: logging.Logger = logging.getLogger("ci_live_audit.redis")

Outage = Literal["share", "wait", "error"]


class RedisRateLimiter:
    """A `RateLimiter` for all processes that use one Redis and one name.

    Use it as ``async with RedisRateLimiter(...) as limiter``, or call `aclose` at the end. It
    belongs to the event loop on which it is first used.

    Args:
        redis: A client of ``redis.asyncio`` (of a cluster, or from Sentinel, too), or a URL. A
            client is not closed here.
        name: The quota; processes with the same name share it.
        rate: Requests a second of all processes together. If they disagree, the lowest holds.
        outage: What happens while Redis is away. ``"share"``: each process goes on at its share of
            the rate, less 5 %. ``"wait"``: nobody passes. ``"error"``: callers get a
            `TransportError`.
        timeout: Seconds after which a response of Redis is given up.
        processes: How many share the rate during an outage, before Redis has said it.

    Raises:
        ConfigurationError: An argument cannot be used, or redis-py is missing.
    """

    #: The longest sleep of somebody who waits: Redis may have forgotten everything meanwhile.
    NAP = 1.0
    #: Seconds between two attempts to reach Redis. Who is back first holds all for twice as long,
    #: until the others have noticed.
    PROBE = 0.3
    #: Bulk work comes one at a time, and so soon after the one before.
    SOON = 0.5
    #: Of slots that are open already, those of so many seconds are claimed at once.
    AT_ONCE = 0.01

    _text = "RedisRateLimiter(...)"  # while it is being made

    def __init__(
        self,
        redis: str | Redis | RedisCluster,
        name: str = "ci",
        rate: float = 20.0,
        outage: Outage = "share",
        *,
        timeout: float = 0.3,
        processes: int = 4,
    ) -> None:
        # A URL may hold a password, and a traceback may show the arguments.
        given, redis = [redis], ""
        self._server = Server(given.pop(), timeout)
        self.name: str = text("name", name)
        if not name or set(name) & set("{}"):
            raise ConfigurationError(f"name: expected a text without braces, got {name!r}")
        if outage not in get_args(Outage):
            raise ConfigurationError(f'outage: expected "share", "wait" or "error"; got {outage!r}')
        self.rate: float = above_zero("rate", rate, "requests a second", at_most=1e6)
        self.outage: Outage = outage
        above_zero("processes", processes, "a number", whole=True)
        self._claimant = Claimant(self._server, name, rate, processes)
        self._lanes = Lanes()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        #: The lane in which Redis has this process waiting.
        self._registered = NOBODY
        self._bulk_at = -self.SOON
        self._patience = Patience(few=2 * quota(rate)[0])
        #: What is wrong with Redis, and the pace since then.
        self._fault = ""
        self._pace = Pace(rate)
        self._text = f"RedisRateLimiter({self._server.place!r}, {name!r}, {rate:g}, {outage!r})"

    def __repr__(self) -> str:
        return self._text

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Leave the others, and close what was opened for a URL; closing twice does no harm.

        Who still waits gets a `ConfigurationError`.
        """
        if self._task is None:
            self._closed = True
            await self._server.aclose()
            return
        if not self._task.done():
            own_loop(self)
        await cancel_and_wait([self._task])

    @property
    def degraded(self) -> bool:
        """Whether Redis is away."""
        return bool(self._fault)

    @property
    def waiting(self) -> int:
        """The number of callers in this process who wait."""
        return len(self._lanes)

    @property
    def processes(self) -> int:
        """The number of processes that share the quota, as Redis has last said."""
        return self._claimant.processes

    @property
    def pace(self) -> float:
        """The requests a second that pass now, of all processes; during an outage, of this one."""
        reply, rate = self._claimant.reply, self._claimant.rate
        if not self._fault:
            return rate if reply is None else reply.pace
        if self.outage != "share":
            return 0.0
        loop: asyncio.AbstractEventLoop = vars(self)["_loop"]
        slowed = self._pace.at(loop.time()) / self.rate
        return rate * Share.CAUTION / self.processes * slowed

    async def acquire(self) -> float:
        """Wait for the next slot, before the bulk of all processes; return the seconds waited.

        Raises:
            ConfigurationError: The limiter is closed, or in use on another event loop, or Redis
                refuses what it is asked: the message says what to do.
            TransportError: Redis is away, and ``outage`` is ``"error"``.
        """
        return await self._acquire(CALLS)

    async def acquire_background(self) -> float:
        """Wait as `acquire` does, behind the direct callers of all processes."""
        return await self._acquire(BULK)

    def hold(self, seconds: float) -> None:
        """Let nobody pass, in any process, for ``seconds`` from now; a minute at most."""
        self._claimant.hold(own_loop(self).time() + min(seconds, Patience.LONGEST))
        self._wake.set()

    def refused(self, asked: float) -> None:
        """Pause, and go on more slowly in all processes: the service has refused a request.

        Args:
            asked: Seconds of ``Retry-After``; 0 without one. More than 10 s count only if they are
                repeated.
        """
        self.hold(self._patience.seconds(asked, own_loop(self).time()))
        self._claimant.refused = HOLD + random.uniform(0, LocalRateLimiter.SHIFT)  # noqa: S311
        if self._fault:
            self._slow_down()

    async def _acquire(self, lane: int) -> float:
        loop = own_loop(self)
        if self._closed:
            raise ConfigurationError("the limiter is closed")
        if self._fault and self.outage == "error":
            raise self._away()
        came = loop.time()
        waiter = self._lanes.join(lane)
        if lane < self._registered:
            self._wake.set()
        if self._task is None:
            self._task = loop.create_task(self._run())
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._pass_on(waiter.result(), loop.time())
            raise
        self._patience.count()
        self._pace.count()
        return loop.time() - came

    def _pass_on(self, slot: str, now: float) -> None:
        """Let the next caller pass; if there is none, or a hold is on, the slot is given back."""
        lane = self._lanes.next()
        if lane == NOBODY or self._claimant.refused or now < self._claimant.held_until:
            self._claimant.tell(slot, now, used=False)
            self._wake.set()
            return
        if lane == BULK:
            self._bulk_at = now
        self._lanes.grant(lane, slot)

    # The dispatcher

    async def _run(self) -> None:
        try:
            while True:
                try:
                    await self._claim()
                except RedisRefused as fault:
                    known = self._claimant.reply is not None
                    await (self._go_on(fault) if known else self._refuse(fault))
                except RedisUnavailable as fault:
                    await self._go_on(fault)
        finally:  # closed, or the loop ends
            self._closed = True
            self._lanes.fail(lambda: ConfigurationError("the limiter was closed"))
            try:
                if self._claimant.reply is not None and not self._fault:
                    await self._claimant.leave()
            finally:
                await self._server.aclose()

    async def _claim(self) -> None:
        """Ask for a slot, and sleep until it is time to ask again."""
        time = asyncio.get_running_loop().time
        self._wake.clear()
        lane = self._registered = self._lanes.next()
        # At a high rate, a round trip takes as long as several slots.
        want = max(1, min(int(self._claimant.rate * self.AT_ONCE), self._lanes.number(lane)))
        more = self._lanes.number(lane) > want
        if lane == BULK and time() - self._bulk_at < self.SOON:
            more = True
        other = lane == CALLS and self._lanes.number(BULK) > 0
        slot = self._claimant.slot()
        reply = await self._claimant.claim(lane, slot, want=want, more=more, other=other)
        if reply.granted:
            if not more:
                self._registered = NOBODY
            for number in range(reply.granted):
                self._pass_on(f"{slot}:{number + 1}", time())
        if self._lanes.next() >= self._registered:
            beat = self._claimant.beat - time()
            await self._nap(min(reply.wait, beat if self._registered == NOBODY else self.NAP))

    async def _nap(self, seconds: float) -> None:
        """Sleep for so long, or until there is news."""
        timer = asyncio.get_running_loop().call_later(seconds, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    # While Redis is away

    def _away(self) -> TransportError:
        text = f"Redis at {self._server.place}, which keeps the quota: {self._fault}"
        return TransportError(text, sent=False)

    async def _refuse(self, fault: RedisRefused) -> None:
        """Tell all who wait what is wrong, and wait for the next to come."""
        self._lanes.fail(lambda: ConfigurationError(f"Redis at {self._server.place}: {fault}"))
        self._registered = NOBODY
        self._wake.clear()
        await self._wake.wait()

    async def _go_on(self, fault: RedisUnavailable) -> None:
        """Go on without Redis until it is back."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._fault = str(fault)
        self._registered = NOBODY
        if self._claimant.refused:
            self._slow_down()
        logger.warning("%s; until it is back, %s", self._away(), self._consequence())
        probe = loop.create_task(self._probe())
        try:
            if self.outage == "share":
                await self._take_share(probe)
            elif self.outage == "error":
                self._lanes.fail(self._away)
            await asyncio.wait({probe})
        finally:
            await cancel_and_wait([probe])
        seconds = loop.time() - began
        logger.warning("Redis at %s is back after %.1f s", self._server.place, seconds)

    def _consequence(self) -> str:
        if self.outage == "share":
            return f"this process sends {self.pace:.3g} requests a second"
        return "nobody passes" if self.outage == "wait" else "every call is an error"

    def _slow_down(self) -> None:
        """Pause and go on more slowly, here alone."""
        self.hold(self._claimant.refused)
        self._claimant.refused = 0.0
        self._pace.lower(own_loop(self).time())

    async def _take_share(self, probe: asyncio.Task[None]) -> None:
        """Let callers pass at this process's own slots."""
        claimant, time = self._claimant, asyncio.get_running_loop().time
        rate, ahead = claimant.rate, claimant.ahead
        if claimant.reply is None:
            ahead = random.uniform(0, self.processes / rate)  # noqa: S311 - not secret
        share = Share.of(rate, self.processes, claimant.rank, ahead)
        # Redis may have granted a slot just before.
        last = share.index(time() + 2 / rate)
        late = max(1, int(LocalRateLimiter.CATCH_UP / share.period))
        credit = 0.0
        while not probe.done():
            await asyncio.wait({probe}, timeout=max(0.0, share.opens(last + 1) - time()))
            now = time()
            for _ in range(min(share.index(now) - last, late)):
                credit = min(credit + self._pace.at(now) / self.rate, 1.0)
                if credit == 1.0 and now >= claimant.held_until and self._lanes.next() != NOBODY:
                    credit = 0.0
                    slot = claimant.slot()
                    claimant.tell(slot, now, used=True)
                    self._pass_on(slot, now)
            last = max(last, share.index(now))

    async def _probe(self) -> None:
        """Ask Redis until it responds."""
        claimant, time = self._claimant, asyncio.get_running_loop().time
        while True:
            began = time()
            try:
                settle = 2 * self.PROBE if claimant.untold else 0.0
                reply = await claimant.claim(NOBODY, "", settle=settle)
            except RedisUnavailable as fault:
                self._fault = str(fault)
            else:
                if not reply.stale:
                    self._fault = ""
                    return
            await asyncio.sleep(max(0.0, began + self.PROBE - time()))
