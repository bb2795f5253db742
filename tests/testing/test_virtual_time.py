"""Virtual time: hours pass at once, in the right order."""

from __future__ import annotations

import asyncio
import time

from ci_live_audit.testing import VirtualTimeLoop


async def test_time_jumps_to_the_next_timer() -> None:
    """Sleeping takes no real time, and timers fire in their order."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    order: list[int] = []

    async def sleep(seconds: int) -> None:
        await asyncio.sleep(seconds)
        order.append(seconds)

    began, real = loop.time(), time.monotonic()
    await asyncio.gather(*(sleep(seconds) for seconds in (7200, 3600, 10)))
    assert order == [10, 3600, 7200]
    assert 7200 <= loop.time() - began < 7201
    assert time.monotonic() - real < 3600


async def test_without_timers_the_loop_waits() -> None:
    """Without a due timer, the loop waits for threads and sockets."""
    began = time.monotonic()
    await asyncio.to_thread(time.sleep, 0.01)
    assert time.monotonic() - began >= 0.01
