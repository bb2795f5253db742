"""Memory that large bodies share, each from its first bytes until it is decoded.

A body that has to wait for memory is not read meanwhile, so its sender waits, too. A server may
drop a connection on which nothing moves (nginx after 60 s), and then the attempt fails like any
other whose connection breaks.
"""

from __future__ import annotations

import asyncio
import math
from typing import Self

__all__ = ["HUGE_BODY", "MAX_MEMORY", "Memory", "Share"]

MAX_MEMORY = 64 * 2**20
# Bodies up to this take what is free; those above it are read in the order in which they came.
HUGE_BODY = 2**20


class Memory:
    """So many bytes for all large bodies together.

    The oldest body goes on even if there is no room for it, so that those that grow never wait for
    each other. So there are at most so many bytes and one body in memory.

    Args:
        size: The number of bytes.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        #: Bytes that have been given out.
        self.used: int = 0
        self._shares: dict[Share, None] = {}  # the oldest first

    def share(self, until: float = math.inf) -> Share:
        """Return the share of one body, which is empty.

        Args:
            until: The time of the loop at which whoever waits for the body gives up.
        """
        return Share(self, until)

    def add(self, share: Share) -> None:
        """Put a share in line, unless it is there, and give it what it may have."""
        self._shares[share] = None
        self._give()

    def remove(self, share: Share) -> None:
        """Take back what a share has, and give it to others."""
        if share in self._shares:
            del self._shares[share]
            self.used -= share.size
            share.size = 0
            self._give()

    def _give(self) -> None:
        """Give out what is free."""
        is_oldest, in_order = True, True
        for share in self._shares:
            more = share.wanted - share.size
            if more > 0:
                fits = self.used + more <= self.size
                if is_oldest or (fits and (in_order or share.wanted <= HUGE_BODY)):
                    self.used += more
                    share.set_size(share.wanted)
                else:
                    in_order = False
            is_oldest = False


class Share:
    """The memory of one body, which is given back when nobody holds it any more.

    As a context manager it holds itself.

    Args:
        memory: Of which it is a share.
        until: The time of the loop at which whoever waits for the body gives up.
    """

    def __init__(self, memory: Memory, until: float) -> None:
        self.until = until
        #: Bytes it has, and bytes it has asked for.
        self.size: int = 0
        self.wanted: int = 0
        self._memory = memory
        self._holders = 0
        self._granted: asyncio.Future[None] | None = None
        self._waited = 0.0
        self._since = math.inf

    def __enter__(self) -> Self:
        self.hold()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def hold(self) -> None:
        """Keep the memory until it has been released as often as it was held."""
        self._holders += 1

    def release(self) -> None:
        """Let go of the memory."""
        self._holders -= 1
        if not self._holders:
            self.wanted = 0
            self._memory.remove(self)

    @property
    def waited(self) -> float:
        """Seconds that were spent waiting for memory so far."""
        if self._granted is None:
            return self._waited
        return self._waited + asyncio.get_running_loop().time() - self._since

    async def grow(self, size: int) -> None:
        """Wait until the body may have so many bytes in memory."""
        self.wanted = size
        self._memory.add(self)
        if self.size < size:
            loop = asyncio.get_running_loop()
            self._granted, self._since = loop.create_future(), loop.time()
            try:
                await self._granted
            finally:
                self._waited, self._granted = self.waited, None

    def set_size(self, size: int) -> None:
        """Let the body have so many bytes."""
        self.size = size
        if self._granted is not None and not self._granted.done():
            self._granted.set_result(None)
