"""Large answers share memory and threads; small ones wait for neither."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from proofs import BACKENDS, times
from servers import Handler, Recorder, client_over, eventually, serving

from ci_live_audit import (
    ConfigurationError,
    JobState,
    LiveAuditClient,
    RetryPolicy,
    ServiceUnavailable,
)
from ci_live_audit.models import AuditJob, Snapshot
from ci_live_audit.testing.render import render
from ci_live_audit.transport.memory import HUGE_BODY, Memory
from ci_live_audit.wire import requests, results
from ci_live_audit.wire.documents import LARGE_BODY

pytestmark = pytest.mark.waits  # for sockets and threads

ONCE = RetryPolicy(attempts=1)


def answer(job_id: str, snapshots: int) -> bytes:
    """Return a job with so many snapshots, of some 450 bytes each."""
    urls = tuple(Snapshot(url=f"https://example.com/{number:0400}") for number in range(snapshots))
    return render(AuditJob(job_id=job_id, state=JobState.AUDITING, snapshots=urls))


SMALL, LARGE, HUGE = (f"av{number}" for number in range(3))
BODIES = {SMALL: answer(SMALL, 1), LARGE: answer(LARGE, 300), HUGE: answer(HUGE, 2600)}
assert len(BODIES[SMALL]) <= LARGE_BODY < len(BODIES[LARGE]) <= HUGE_BODY < len(BODIES[HUGE])


def sizes(*, chunked: bool = False, status: str = "200 OK") -> Handler:
    """Answer about the job of the id, with or without saying how large the answer is."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, Recorder)
        while True:
            body = BODIES[(await reader.request()).split()[1].rpartition(b"/")[2].decode()]
            if chunked:
                head, body = (
                    "Transfer-Encoding: chunked",
                    b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body),
                )
            else:
                head = f"Content-Length: {len(body)}"
            writer.write(f"HTTP/1.1 {status}\r\n{head}\r\n\r\n".encode() + body)
            await writer.drain()

    return handle


@contextlib.asynccontextmanager
async def client_of(
    handler: Handler, backend: str = "own", **options: Any
) -> AsyncIterator[LiveAuditClient]:
    """Open a client of a server, and see that all memory has been given back at the end."""
    async with serving(handler) as served:
        async with client_over(backend, served.url, **({"retry": ONCE} | options)) as client:
            yield client
        assert await eventually(lambda: memory_of(client).used == 0)


def memory_of(client: LiveAuditClient) -> Memory:
    return client._caller.transport.memory


@contextlib.asynccontextmanager
async def no_memory_left(client: LiveAuditClient) -> AsyncIterator[None]:
    """Take all memory for as long as the context lasts."""
    memory = memory_of(client)
    with memory.share() as share:
        await share.grow(memory.size)
        yield


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
async def test_large_answers_share_memory(backend: str, chunked: bool) -> None:
    """Of many large answers at once, as many are in memory as fit, and one more."""
    most = 0
    room = 2 * len(BODIES[HUGE])
    async with client_of(sizes(chunked=chunked), backend, max_memory=room) as client:
        give, memory = memory_of(client)._give, memory_of(client)

        def watched() -> None:
            nonlocal most
            give()
            most = max(most, memory.used)

        memory._give = watched  # type: ignore[method-assign]
        jobs = await asyncio.gather(*(client.query(HUGE) for _ in range(8)))
        assert {len(job.snapshots) for job in jobs} == {2600}
        assert room <= most <= room + len(BODIES[HUGE]) + 2**18


@pytest.mark.parametrize("backend", BACKENDS)
async def test_small_answers_do_not_wait_for_memory(backend: str) -> None:
    """While there is no memory, a large answer is not read, and small ones come as ever."""
    async with client_of(sizes(), backend) as client:
        async with no_memory_left(client):
            large = asyncio.create_task(client.query(LARGE))
            sibling = client.with_options(timeout=3)
            for _ in range(20):
                assert (await sibling.query(SMALL)).job_id == SMALL
            assert not large.done()
        assert (await large).job_id == LARGE


@pytest.mark.parametrize("backend", BACKENDS)
async def test_closing_the_client_frees_who_waits_for_memory(backend: str) -> None:
    """A call that waits for memory ends when its client is closed."""
    async with client_of(sizes(), backend) as client, no_memory_left(client):
        large = asyncio.create_task(client.query(LARGE))
        assert await eventually(lambda: len(memory_of(client)._shares) == 2)
        await client.aclose()
        with pytest.raises(ConfigurationError, match="closed during the call"):
            await large


@pytest.mark.parametrize("backend", BACKENDS)
async def test_leaving_at_any_instant_gives_memory_back(backend: str) -> None:
    """Calls are cancelled while they wait, read and decode: others go on, and nothing is kept."""
    rng = random.Random(backend)
    async with client_of(sizes(), backend, max_memory=2 * len(BODIES[LARGE])) as client:

        async def leave() -> None:
            call = asyncio.create_task(client.query(rng.choice((LARGE, LARGE, HUGE))))
            await asyncio.sleep(rng.random() ** 2 * 0.05)
            call.cancel()
            await asyncio.wait([call])

        for _ in range(times(1000) // 20):
            await asyncio.gather(*(leave() for _ in range(20)))
        assert (await client.query(HUGE)).job_id == HUGE


async def test_an_answer_that_is_no_job_gives_memory_back() -> None:
    """The memory of a large refusal is free before the next attempt."""
    retry = RetryPolicy(attempts=3, base_delay=0.001)
    async with client_of(
        sizes(status="503 Service Unavailable"), retry=retry, max_memory=1
    ) as client:
        with pytest.raises(ServiceUnavailable) as caught:
            await client.query(LARGE)
        assert caught.value.attempts == 3


class Gate:
    """Decodes a body when it is told to."""

    def __init__(self) -> None:
        self.began, self.open = threading.Event(), threading.Event()

    def read(self, body: bytes) -> AuditJob:
        """Wait, and decode."""
        self.began.set()
        self.open.wait()
        return results.job(body)


async def decoding(client: LiveAuditClient, gate: Gate, job_id: str) -> asyncio.Task[AuditJob]:
    """Return a call whose answer is being decoded."""
    call = asyncio.create_task(client._caller.call(requests.query(job_id), gate.read))
    assert await eventually(gate.began.is_set)
    return call


@pytest.mark.parametrize("job_id", [LARGE, HUGE])
async def test_what_is_still_being_decoded_keeps_its_memory(job_id: str) -> None:
    """A thread goes on after its caller was cancelled, and until its end the memory is in use."""
    gate = Gate()
    async with client_of(sizes()) as client:
        call = await decoding(client, gate, job_id)
        call.cancel()
        await asyncio.wait([call])
        assert memory_of(client).used >= len(BODIES[job_id])
        gate.open.set()
        assert await eventually(lambda: memory_of(client).used == 0)


async def test_who_waits_for_a_thread_and_leaves_gives_memory_back() -> None:
    """A body that nobody waits for any more is not decoded, and is not in memory."""
    gate = Gate()
    async with client_of(sizes()) as client:
        first = await decoding(client, gate, HUGE)
        second = asyncio.create_task(client.query(HUGE))
        assert await eventually(lambda: memory_of(client).used >= 2 * len(BODIES[HUGE]))
        await asyncio.sleep(0.1)
        second.cancel()
        await asyncio.wait([second])
        assert memory_of(client).used < 2 * len(BODIES[HUGE])
        gate.open.set()
        assert (await first).job_id == HUGE


async def test_huge_answers_do_not_hold_up_others() -> None:
    """While one of more than 1 MB is decoded, smaller ones are decoded, too."""
    gate = Gate()
    async with client_of(sizes()) as client:
        huge = await decoding(client, gate, HUGE)
        for job_id in (SMALL, LARGE):
            assert (await client.query(job_id)).job_id == job_id
        gate.open.set()
        await huge
