"""A limiter for bulk work, in front of the one that everything shares."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from weakref import WeakValueDictionary

from ci_live_audit._loop import running_loop
from ci_live_audit.limits.limiter import RateLimiter

__all__ = ["BackgroundRateLimiter"]


class _Gate(asyncio.Lock):
    """The gate of one limiter on one event loop; it exists while somebody is at it."""

    def __init__(self, limiter: RateLimiter, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        # They live as long as the gate, so that nothing else gets their identities.
        self._limiter, self._owner = limiter, loop


#: By identities: a limiter of somebody else may not be hashable, nor have attributes.
_gates: WeakValueDictionary[tuple[int, int], _Gate] = WeakValueDictionary()


class BackgroundRateLimiter:
    """A `RateLimiter` for work that can wait, in front of another.

    Only one caller at a time enters the underlying queue, however many of these stand in front of
    it, so a direct caller waits behind one at most.

    Args:
        limiter: The underlying limiter.

    Attributes:
        requests: How many requests it has let pass.
    """

    def __init__(self, limiter: RateLimiter) -> None:
        self._limiter = limiter
        self._acquire = getattr(limiter, "acquire_background", limiter.acquire)
        #: As the underlying limiter has it; None if it knows only ``hold``.
        self.refused: Callable[[float], object] | None = getattr(limiter, "refused", None)
        self.requests: int = 0

    def sibling(self) -> BackgroundRateLimiter:
        """Return a limiter that waits at the same gate and counts its own requests."""
        return BackgroundRateLimiter(self._limiter)

    async def wait_for_gate(self) -> None:
        """Wait until a caller who came now would be next to enter the underlying queue."""
        async with self._gate():
            pass

    async def acquire(self) -> float:
        """Wait as the underlying limiter does; the seconds include those at the gate."""
        time = asyncio.get_running_loop().time
        came = time()
        async with self._gate():
            await self._acquire()
        self.requests += 1
        return time() - came

    def hold(self, seconds: float) -> None:
        """Pause all callers of the underlying limiter."""
        self._limiter.hold(seconds)

    def _gate(self) -> _Gate:
        loop = running_loop()
        key = id(self._limiter), id(loop)
        gate = _gates.get(key)
        if gate is None:
            gate = _gates[key] = _Gate(self._limiter, loop)
        return gate
