"""Memory that bodies share: in order, bounded, and given back whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from clocks import now
from exchanges import GET
from proofs import times

from ci_live_audit import RequestTimeout
from ci_live_audit.transport.body import read_body
from ci_live_audit.transport.exchange import Transport
from ci_live_audit.transport.memory import HUGE_BODY, MAX_MEMORY, Memory
from ci_live_audit.wire.responses import Response

MB = 2**20


class Bodies:
    """Bodies that are held until they are told to leave, and the order in which they got memory."""

    def __init__(self, size: int) -> None:
        self.memory = Memory(size)
        self.began: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.Event] = {}

    async def begin(self, name: str, *sizes: int) -> None:
        """Let a body of a name grow to one size after the other, as far as it can now."""
        end = self._ends[name] = asyncio.Event()

        async def body() -> None:
            with self.memory.share() as share:
                for size in sizes:
                    await share.grow(size)
                    self.began.append(name)
                    await asyncio.sleep(0)
                await end.wait()

        self.tasks[name] = asyncio.create_task(body())
        await settled()

    async def end(self, name: str) -> None:
        """Let a body leave."""
        self._ends[name].set()
        await self.tasks[name]
        await settled()

    async def cancel(self, name: str) -> None:
        """Cancel a body."""
        self.tasks[name].cancel()
        await asyncio.wait([self.tasks[name]])
        await settled()


async def settled() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_bodies_get_memory_in_the_order_in_which_they_came() -> None:
    """A body that finds no room waits, and so do all huge ones that come after it."""
    bodies = Bodies(10 * MB)
    for name, size in {"a": 6, "b": 6, "c": 4, "d": 2}.items():
        await bodies.begin(name, size * MB)
    assert bodies.began == ["a"]
    await bodies.end("a")
    assert bodies.began == ["a", "b", "c"]
    await bodies.end("b")
    assert bodies.began == ["a", "b", "c", "d"]
    await bodies.end("c")
    await bodies.end("d")
    assert bodies.memory.used == 0


async def test_smaller_bodies_take_what_is_free() -> None:
    """A body of up to 1 MB does not wait behind a huge one that finds no room."""
    bodies = Bodies(10 * MB)
    await bodies.begin("a", 9 * MB)
    await bodies.begin("b", 9 * MB)
    await bodies.begin("c", HUGE_BODY)
    await bodies.begin("d", HUGE_BODY)
    assert bodies.began == ["a", "c"]
    await bodies.end("a")
    assert bodies.began == ["a", "c", "b"]  # b was there before d
    await bodies.end("c")
    assert bodies.began == ["a", "c", "b", "d"]


async def test_a_body_larger_than_all_memory_is_alone() -> None:
    """The oldest body gets what it needs, and no other is in memory with it."""
    bodies = Bodies(MB)
    await bodies.begin("a", 5 * MB)
    await bodies.begin("b", MB)
    assert bodies.began == ["a"]
    await bodies.end("a")
    assert bodies.began == ["a", "b"]


async def test_bodies_that_grow_do_not_wait_for_each_other() -> None:
    """Bodies that have taken all memory together end one after the other, the oldest first."""
    bodies = Bodies(10 * MB)
    sizes = [size * MB for size in range(1, 9)]
    await asyncio.gather(bodies.begin("a", *sizes), bodies.begin("b", *sizes))
    assert bodies.began.count("a") == 8
    assert bodies.began.count("b") < 8
    await bodies.end("a")
    assert bodies.began.count("b") == 8


async def test_who_leaves_the_line_makes_room() -> None:
    """A body that is cancelled, waiting or not, gives back what it has, and the next go on."""
    bodies = Bodies(10 * MB)
    for name, size in {"a": 6, "b": 9, "c": 4, "d": 9}.items():
        await bodies.begin(name, size * MB)
    await bodies.cancel("b")
    assert bodies.began == ["a", "c"]
    await bodies.cancel("a")
    await bodies.end("c")
    assert bodies.began == ["a", "c", "d"]
    await bodies.cancel("d")
    assert bodies.memory.used == 0


async def test_who_is_cancelled_when_its_turn_has_come_gives_back() -> None:
    """A body that is cancelled in the very step in which it gets memory does not keep it."""
    bodies = Bodies(MB)
    await bodies.begin("a", MB)
    await bodies.begin("b", MB)
    bodies._ends["a"].set()
    bodies.tasks["a"].add_done_callback(lambda _: bodies.tasks["b"].cancel())
    await asyncio.wait(bodies.tasks.values())
    assert bodies.tasks["b"].cancelled()
    assert bodies.memory.used == 0


async def test_memory_is_given_back_once() -> None:
    """What several hold goes back when the last of them lets go, however often it is taken up."""
    memory = Memory(MB)
    share = memory.share()
    with share:
        share.hold()
        await share.grow(1000)
    assert memory.used == 1000
    share.release()
    assert memory.used == 0
    with share:
        await share.grow(2000)
        assert memory.used == 2000
    assert memory.used == 0


async def test_the_time_of_waiting_is_known_while_it_passes() -> None:
    """A share knows for how many seconds it has waited, all in all."""
    memory = Memory(MB)
    first, second = memory.share(), memory.share()

    async def wait() -> None:
        with second:
            await second.grow(MB)
            assert second.waited == pytest.approx(30, abs=1e-3)
            await asyncio.sleep(10)
            assert second.waited == pytest.approx(30, abs=1e-3)

    with first:
        await first.grow(MB)
        assert first.waited == 0
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(20)
        assert second.waited == pytest.approx(20, abs=1e-3)
        await asyncio.sleep(10)
    await waiting


class Slow(httpx.AsyncBaseTransport):
    """Sends pieces of 32 KB, with a pause of seconds before each."""

    def __init__(self, *pauses: float) -> None:
        self._pauses = pauses

    async def handle_async_request(self, _: httpx.Request) -> httpx.Response:
        """Respond with a body that is still to be read."""
        return httpx.Response(200, content=self._pieces())

    async def _pieces(self) -> AsyncIterator[bytes]:
        for pause in self._pauses:
            await asyncio.sleep(pause)
            yield bytes(2**15)


@contextlib.asynccontextmanager
async def reading(*pauses: float, until: float, waits: float) -> AsyncIterator[Response]:
    """Exchange for a slow body with a timeout of 5 s, while there is no memory for ``waits`` s."""
    async with httpx.AsyncClient(transport=Slow(*pauses)) as http:
        transport = Transport("http://example.com", http)
        with transport.memory.share() as other, transport.memory.share(until) as share:
            await other.grow(MAX_MEMORY)
            asyncio.get_running_loop().call_later(waits, transport.memory.remove, other)
            yield await transport.send(GET, timeout=5, share=share)


async def test_waiting_for_memory_does_not_count_to_the_timeout() -> None:
    """An exchange gets all its seconds, before and after it waits."""
    async with reading(*[1.2] * 4, until=200, waits=100) as response:
        assert response.error is None
        assert len(response.body) == 4 * 2**15
    assert now() == pytest.approx(101.2, abs=0.01)


async def test_an_exchange_ends_by_its_timeout_after_all() -> None:
    """Seconds in line for memory are added to the timeout, and no more than these."""
    async with reading(*[1.2] * 5, until=200, waits=100) as response:
        assert isinstance(response.error, RequestTimeout)
        assert "within 5 s, and 96.4 s in line for max_memory" in str(response.error)
    assert now() == pytest.approx(101.4, abs=0.01)


async def test_who_waits_for_memory_gives_up_in_time() -> None:
    """However long a body waits, the exchange ends when its caller gives up."""
    async with reading(*[1.2] * 4, until=50, waits=100) as response:
        assert isinstance(response.error, RequestTimeout)
    assert now() == pytest.approx(50, abs=0.01)


async def pieces(size: int, piece: int, pause: Callable[[], float]) -> AsyncIterator[bytes]:
    for _ in range(size // piece):
        await asyncio.sleep(pause())
        yield bytes(piece)


@pytest.mark.parametrize("seed", range(4))
async def test_any_bodies_end_within_bounds(seed: int) -> None:
    """Bodies of all sizes, announced or not, of which a third is cancelled: none is stuck."""
    rng = random.Random(seed)
    memory = Memory(4 * MB)
    largest, most, ended = 3 * MB, 0, 0

    async def use(size: int) -> None:
        nonlocal most, ended
        headers = {"content-length": str(size)} if rng.random() < 0.5 else {}
        head = Response(status=200, headers=headers)
        with memory.share() as share:
            chunks = pieces(size, 2**15, lambda: rng.random() / 10)
            response = await read_body(head, chunks, largest, share)
            assert share.size >= len(response.body) or len(response.body) <= 2**16
            most = max(most, memory.used)
            await asyncio.sleep(rng.random())  # decoding
        ended += 1

    async def one() -> None:
        await asyncio.sleep(rng.random() * 20)
        task = asyncio.create_task(use(rng.randrange(1, largest // 2**15) * 2**15))
        if rng.random() < 1 / 3:
            await asyncio.sleep(rng.random() * 10)
            task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    await asyncio.gather(*(one() for _ in range(times(1000) // 4)))
    assert ended >= times(1000) // 4 / 3
    assert 3 * MB < most <= 4 * MB + largest
    assert memory.used == 0
    assert now() < 3600
