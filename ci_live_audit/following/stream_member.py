"""One process of several that moderate streams together: `StreamMember`."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ci_live_audit._loop import running_loop
from ci_live_audit.following.member import Member

if TYPE_CHECKING:
    from ci_live_audit.following.shared import Resigned, SharedStreams

__all__ = ["StreamMember"]

#: Seconds between two looks whether the others have taken what was given back.
PAUSE = 0.1

Call = Callable[[str], Awaitable[Any]]


class StreamMember(Member):
    """The streams that this process is given, by their keys, and those that it claims.

    Args:
        store: What the processes share.
        lines: Returns the claim of a stream, and the line of its job, if they are known.
    """

    def __init__(self, store: SharedStreams, lines: Callable[[str], tuple[bytes, bytes]]) -> None:
        super().__init__(store, [])
        self._streams = store
        self._lines = lines
        self._asks: deque[tuple[Call, asyncio.Future[Any]]] = deque()
        #: Keys whose claim has been made, while its answer is not known.
        self._claiming: frozenset[str] = frozenset()
        self._may_claim = -math.inf
        #: Lines of streams that the store may have lost.
        self._to_restore: dict[str, tuple[bytes, bytes]] = {}
        self._resigned = False

    @property
    def is_away(self) -> bool:
        """Whether the store could not be reached."""
        return self._away_since is not None

    def holds(self, key: str) -> bool:
        """Return whether a stream is this process's."""
        return key in self._held

    async def claim(
        self, claims: Mapping[str, bytes], *, at_once: int, once: bool, doubt: float
    ) -> dict[str, str]:
        """Claim streams, and return the word for each: see `Claimed`."""

        async def call(process: str) -> dict[str, str] | None:
            # Others may not have told a store that has lost all what it knew.
            if running_loop().time() < self._may_claim:
                return dict.fromkeys(claims, "full")
            self._claiming = frozenset(claims)
            claimed = await self._streams.claim(
                process, claims, at_once=at_once, once=once, doubt=doubt
            )
            self._claiming = frozenset()
            if claimed.lost:
                return None
            words = dict(zip(claims, claimed.words, strict=True))
            self._held.update({key: None for key, word in words.items() if word == "mine"})
            self._open = claimed.open
            return words

        words: dict[str, str] = await self._ask(call)
        return words

    async def report(self, key: str, claim: bytes, job: bytes) -> None:
        """Note what became of a claim; see `SharedStreams.report`."""

        async def call(_: str) -> bool:
            await self._streams.report(key, claim, job)
            self._held.pop(key, None)
            self._open, self._beat_due = math.inf, -math.inf
            return True

        await self._ask(call)

    async def resign(self, *, takes: bool, until: float) -> Resigned:
        """Give all streams to the others, and wait until they have them; see `Resigned`."""

        async def call(process: str) -> Resigned:
            self._resigned = True
            resigned = await self._streams.resign(process, takes=takes)
            self._held = {key: None for key, _ in resigned.streams}
            if resigned.streams:  # the lease has to last until they are stopped
                self._resigned, self._want, self._beat_due = False, 0, -math.inf
            return resigned

        while True:
            resigned: Resigned = await self._ask(call)
            is_settled = resigned.streams or not (resigned.others and resigned.waiting)
            if is_settled or running_loop().time() > until:
                return resigned
            await asyncio.sleep(PAUSE)

    async def _ask(self, call: Call) -> Any:
        """Have something asked of the store, which may take as long as it is away."""
        answer = running_loop().create_future()
        self._asks.append((call, answer))
        self._wake.set()
        if not self._talks():
            self._fail_asks()
        return await answer

    async def _beat(self) -> None:
        if self._resigned:
            self._beat_due = math.inf
        else:
            await super()._beat()

    async def _tell(self) -> None:
        while self._to_add:
            key = self._to_add[0]
            claim, job = self._to_restore.get(key, (b"", b""))
            if job:
                await self._streams.report(key, claim, job)
            del self._to_add[0]
            self._to_restore.pop(key, None)
            self._beat_due = -math.inf
        await super()._tell()
        while self._asks and not self._joins:
            call, answer = self._asks[0]
            result = True if answer.done() else await call(self._name)
            if result is None:
                self._lose(forgotten=False)
                return
            self._asks.popleft()
            if not answer.done():
                answer.set_result(result)

    def _end(self, task: asyncio.Task[None]) -> None:
        super()._end(task)
        if not task.cancelled():
            self._fail_asks()

    def _awaited(self) -> Sequence[asyncio.Future[Any]]:
        return [*self._waiters, *(answer for _, answer in self._asks)]

    def _fail_asks(self) -> None:
        for _, answer in self._asks:
            if not answer.done():
                answer.set_exception(self._problem or ConnectionError("the run has been left"))
        self._asks.clear()

    def _lose(self, *, forgotten: bool) -> None:
        self._to_restore |= {key: self._lines(key) for key in self._held}
        super()._lose(forgotten=forgotten)
        self._claiming = frozenset()
        self._may_claim = running_loop().time() + self._store.ttl

    def _settle(self, own: set[str]) -> None:
        self._to_restore |= {key: self._lines(key) for key in self._held.keys() - own}
        super()._settle(own - self._claiming)
