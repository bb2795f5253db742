"""One process before Redis: what it claims, what it has to tell, and what it has learned."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from functools import cached_property

import attrs

from ci_live_audit._redis import RedisUnavailable, Server
from ci_live_audit.limits.claim import CLAIM, LATELY, LEAVE, keys
from ci_live_audit.limits.lanes import NOBODY
from ci_live_audit.limits.limiter import quota

__all__ = ["Claimant", "Reply"]

logger: logging.Logger = logging.getLogger("ci_live_audit.redis")


@attrs.frozen
class Reply:
    """What Redis says to a claim, in seconds and requests a second.

    Attributes:
        granted: How many slots are granted.
        stale: Whether the claim was too old to be looked at.
        wait: Until the next slot is expected to open for this process.
        held: For how long nobody gets a slot.
        pace: What passes now, of all processes together.
        rate: The lowest that a process was given.
        now: The time of the server.
        processes: The number of processes that share the quota.
        rank: The place of this one among them, if that was asked.
    """

    granted: int
    stale: bool
    wait: float
    held: float
    pace: float
    rate: float
    now: float
    processes: int
    rank: int

    @classmethod
    def of(cls, numbers: list[int]) -> Reply:
        """Return the reply that the script's numbers are."""
        granted, *times, processes, rank = numbers
        wait, held, pace, rate, now = (number / 1e6 for number in times)
        return cls(max(granted, 0), granted < 0, wait, held, pace, rate, now, processes, rank)


@attrs.frozen
class _Slot:
    """A slot of this process that Redis has yet to be told of."""

    id: str
    time: float
    used: bool


class Claimant:
    """A process that claims slots of a quota.

    Args:
        server: The Redis.
        name: The quota.
        rate: Requests a second of all processes, as far as this one knows.
        processes: Their number, as far as this one knows.

    Attributes:
        reply: The last reply; None if there has been none.
        processes: The number of processes.
        rank: The place of this one among them.
        ahead: Seconds by which the server's clock is ahead of the loop's.
        refused: Seconds to pause at most because the service has refused a request, until Redis
            has been told; otherwise 0.
        untold: Whether there are slots that were taken without Redis.
    """

    #: Seconds after which Redis is told that this process is there, at the latest.
    BEAT = LATELY / 3

    def __init__(self, server: Server, name: str, rate: float, processes: int) -> None:
        self._server = server
        self._name = name
        self._rate = rate
        self._keys = keys(name)
        self._slots = 0
        self._untold: list[_Slot] = []
        self._counted_at = -math.inf
        self.reply: Reply | None = None
        self.processes: int = processes
        self.rank: int = 0
        self.ahead: float = 0.0
        self.refused: float = 0.0
        self._own_hold = self._shared_hold = -math.inf

    @cached_property
    def _me(self) -> str:
        """Made when it is used: processes may fork before that."""
        return secrets.token_hex(8)

    @property
    def held_until(self) -> float:
        """The time of the loop until which nobody may pass."""
        return max(self._own_hold, self._shared_hold)

    @property
    def rate(self) -> float:
        """Requests a second of all processes: the lowest that one was given."""
        return self._rate if self.reply is None else self.reply.rate

    @property
    def untold(self) -> bool:
        """Whether slots have passed of which Redis does not know."""
        return bool(self._untold)

    @property
    def beat(self) -> float:
        """The time of the loop at which Redis wants to hear of this process."""
        return self._counted_at + self.BEAT

    def hold(self, until: float) -> None:
        """Let nobody pass up to a time of the loop, in no process, as soon as they know of it."""
        self._own_hold = max(self._own_hold, until)

    def slot(self) -> str:
        """Return the id of a new slot."""
        self._slots += 1
        return f"{self._me}:{self._slots}"

    def tell(self, slot: str, now: float, *, used: bool) -> None:
        """Note a slot that was taken without Redis, or given by it and not used."""
        oldest = now - 2 * quota(self.rate)[1]  # older ones count no more
        self._untold = [one for one in self._untold if one.time > oldest]
        self._untold.append(_Slot(slot, now, used))

    async def claim(
        self,
        lane: int,
        slot: str,
        *,
        want: int = 1,
        more: bool = False,
        other: bool = False,
        settle: float = 0.0,
    ) -> Reply:
        """Ask for slots.

        Args:
            lane: Who wants them, or `NOBODY`.
            slot: The beginning of their ids; ``:1`` and so on follow.
            want: How many at most, if they are open already.
            more: Whether another one of this lane will be wanted.
            other: Whether somebody waits in the other lane.
            settle: Seconds to hold everybody if the other processes were without Redis, too.

        Raises:
            RedisUnavailable: Redis does not respond.
        """
        time = asyncio.get_running_loop().time
        now = time()
        census = now >= self.beat
        # With the time that is allowed for a reply, by the clock of the server.
        before = 0.0 if self.reply is None else now + self.ahead + self._server.timeout
        refused, self.refused = self.refused, 0.0
        untold, self._untold = self._untold, []
        try:
            numbers = await self._server.run(
                CLAIM,
                self._keys,
                self._me,
                lane if lane != NOBODY else -1,
                int(other),
                int(more),
                _us(before),
                self._rate,
                _us(max(0.0, self._own_hold - now)),
                _us(refused),
                int(census),
                _us(settle),
                slot,
                want,
                *(part for one in untold for part in _told(one, now)),
            )
            # Before Python 3.12, `asyncio.wait_for` may lose it.
            if _is_being_cancelled():
                raise asyncio.CancelledError
        except BaseException:
            self._keep(refused, untold)
            raise
        reply = Reply.of(numbers)
        self.ahead = reply.now - time()
        if reply.stale:
            self._keep(refused, untold)
        else:
            self._learn(reply, time(), census=census)
        return reply

    async def leave(self) -> None:
        """Tell Redis that this process has gone, if it can be told."""
        try:
            await self._server.run(LEAVE, self._keys, self._me)
        except RedisUnavailable as fault:
            logger.debug("Redis at %s was not told that this ends: %s", self._server.place, fault)

    def _keep(self, refused: float, untold: list[_Slot]) -> None:
        """Keep for the next claim what was not told."""
        self.refused = max(self.refused, refused)
        self._untold = untold + self._untold

    def _learn(self, reply: Reply, now: float, *, census: bool) -> None:
        known = self.rate
        self.reply = reply
        self._shared_hold = now + reply.held
        if census:
            self._counted_at, self.rank = now, reply.rank
        elif reply.processes != self.processes:
            self._counted_at = -math.inf  # somebody came, or left, or Redis has forgotten all
        self.processes = reply.processes
        if known - reply.rate > 2e-6:
            logger.warning(
                "another process shares the quota %r at %g requests a second; that holds for all",
                self._name,
                reply.rate,
            )


def _told(one: _Slot, now: float) -> tuple[str, int]:
    """Return what Redis is told of a slot: its age, or that it was not used."""
    return one.id, _us(now - one.time) if one.used else -1


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _us(seconds: float) -> int:
    return round(seconds * 1e6)
