"""R5: a process that is stopped, or a loop that is blocked, loses no response for it.

Real processes, and signals that stop them: for as long, a response lies in the client's socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator

import pytest
from clocks import now, stand_still
from servers import Recorder, client_for, serving

from ci_live_audit import LiveAuditClient, RequestTimeout, RetryPolicy

TIMEOUT = 1.0
CLIENT = f"""
import asyncio, sys
from ci_live_audit import Credentials, LiveAuditClient, LiveAuditError, RetryPolicy

async def main():
    async with LiveAuditClient(
        "examplebucket-1250000000", "ap-beijing", endpoint=sys.argv[1], timeout={TIMEOUT},
        credentials=Credentials("AKIDEXAMPLE", "secretexample"),
        retry=RetryPolicy(attempts=1, deadline={TIMEOUT} + 0.01),
    ) as client:
        # What a first call loads takes long on a busy machine.
        patient = client.with_options(timeout=60, retry=RetryPolicy(deadline=60))
        await patient.query("a")
        if sys.argv[2] == "submit":
            print((await client.submit("rtmp://live.example.com/app/room7")).job_id)
        else:
            print((await client.query("a")).job_id)

try:
    asyncio.run(main())
except LiveAuditError as error:
    print(type(error).__name__)
"""


def document(size: int) -> bytes:
    """Return a document about job ``a`` with a body of so many bytes."""
    start = b"<Response><JobsDetail><JobId>a</JobId><State>Success</State>"
    row = b"<Snapshot><Url>http://a.example/1.jpg</Url><Text>text</Text></Snapshot>"
    return start + row * (size // len(row)) + b"</JobsDetail></Response>"


def head(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)


async def while_stopped(process: int) -> None:
    """Stop a process; return once it has stopped."""
    os.kill(process, signal.SIGSTOP)
    await asyncio.to_thread(os.waitid, os.P_PID, process, os.WSTOPPED | os.WNOWAIT)


async def stopped_during(call: str, response: bytes) -> str:
    """Return what a client prints that is stopped while a response comes."""
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, Recorder)
        await reader.request()
        if len(served.requests) == 1:
            writer.write(head(document(0)) + document(0))
            await reader.request()
        process = await started
        await while_stopped(process)
        writer.write(response)
        await asyncio.to_thread(time.sleep, 2.5 * TIMEOUT)
        os.kill(process, signal.SIGCONT)
        await reader.inner.read()

    async with serving(handle) as served:
        client = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CLIENT, served.url, call), stdout=asyncio.subprocess.PIPE
        )
        started.set_result(client.pid)
        output, _ = await client.communicate()
        return output.decode().strip()


@pytest.mark.waits
@pytest.mark.parametrize("size", [1_000, 50_000, 120_000, 1_000_000])
@pytest.mark.parametrize("call", ["submit", "query"])
async def test_r05_a_stopped_process_reads_what_came_meanwhile(call: str, size: int) -> None:
    """A response that arrived while the process was stopped, past every deadline, is read."""
    body = document(size)
    assert await stopped_during(call, head(body) + body) == "a"


@pytest.mark.waits
@pytest.mark.parametrize("size", [0, 1_000], ids=["no response", "half a response"])
async def test_r05_a_server_that_hangs_still_times_out_after_a_stop(size: int) -> None:
    """If nothing more comes, the call ends soon after the process goes on."""
    body = document(size)
    response = (head(body) + body)[:-10] if size else b""
    assert await stopped_during("query", response) == "RequestTimeout"


# The same by virtual time: a loop that the application blocks


@contextlib.asynccontextmanager
async def blocked_during(response: bytes, *, seconds: float) -> AsyncIterator[LiveAuditClient]:
    """Open a client whose loop is blocked while a response comes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, Recorder)
        await reader.request()
        writer.write(response)
        stand_still(seconds)
        await reader.inner.read()

    retry = RetryPolicy(attempts=1, deadline=1.5)
    async with (
        serving(handle) as served,
        client_for(served.url, timeout=1.0, retry=retry) as client,
    ):
        yield client


@pytest.mark.parametrize("seconds", [1.05, 2.0, 3600.0])
async def test_r05_a_blocked_loop_reads_what_came_meanwhile(seconds: float) -> None:
    """A response that arrived while the application blocked the loop is read."""
    body = document(1_000)
    async with blocked_during(head(body) + body, seconds=seconds) as client:
        assert (await client.submit("rtmp://live.example.com/app/room7")).job_id == "a"


async def test_r05_a_blocked_loop_waits_no_more_than_a_second_longer() -> None:
    """Without a response, the call ends within a second after the loop goes on."""
    async with blocked_during(b"", seconds=3600.0) as client:
        with pytest.raises(RequestTimeout):
            await client.query("a")
        assert now() <= 3601.05
