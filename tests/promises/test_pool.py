"""R15, S14: how many connections there are, and what arrives on them that nobody asked for."""

from __future__ import annotations

import asyncio
import json
import random
import select
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from proofs import IN_FULL, times
from servers import Recorder, serving, trusted

from ci_live_audit import (
    Credentials,
    LiveAuditClient,
    LiveAuditError,
    RetryPolicy,
    ServiceUnavailable,
)
from ci_live_audit.retry import Attempt
from ci_live_audit.testing import Emulator

pytestmark = pytest.mark.waits  # for sockets

JOB = ("<Response><JobsDetail><JobId>{}</JobId><State>{}</State></JobsDetail></Response>").format
ERROR = "<Error><Code>{}</Code><Message>smuggled</Message></Error>".format


def client_of(url: str, **options: Any) -> LiveAuditClient:
    """Return a client of a server, without a quota and with quick retries."""
    defaults: dict[str, Any] = {
        "credentials": Credentials("AKIDEXAMPLE", "secretexample"),
        "rate": float("inf"),
        "retry": RetryPolicy(base_delay=0.001),
    }
    return LiveAuditClient(
        "examplebucket-1250000000", "ap-beijing", endpoint=url, **(defaults | options)
    )


# R15: connections are bounded

# Queries one job many times at once with few descriptors left, and tells what came of it.
QUERIES = """
import asyncio, collections, json, os, resource, sys
from ci_live_audit import Credentials, LiveAuditClient, RetryPolicy

url, job_id, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])

async def main():
    async with LiveAuditClient(
        "examplebucket-1250000000", "ap-beijing", endpoint=url, rate=float("inf"),
        credentials=Credentials("AKIDEXAMPLE", "secretexample"),
        retry=RetryPolicy(attempts=options["attempts"]), **options["client"],
    ) as client:
        await client.query(job_id)  # opens whatever stays open
        limit = options["limit"] or len(os.listdir("/dev/fd")) + options["free"]
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        found = await asyncio.gather(
            *(client.query(job_id) for _ in range(options["queries"])), return_exceptions=True
        )
    errors = [one for one in found if isinstance(one, Exception)]
    print(json.dumps([[str(one), one.transient, one.sent] for one in errors]))

asyncio.run(main())
"""


async def errors_of(
    queries: int, *, limit: int = 0, free: int = 20, attempts: int = 1, **client: Any
) -> list[Any]:
    """Return the errors of so many queries at once, in a process with few descriptors.

    Args:
        queries: Number of queries.
        limit: Descriptors the process may have in all; or
        free: how many it may open.
        attempts: Attempts of each query.
        client: Options of the client.
    """
    emulator = Emulator(
        bucket="examplebucket-1250000000",
        region="ap-beijing",
        credentials=Credentials("AKIDEXAMPLE", "secretexample"),
        rate=float("inf"),
    )
    job_id = emulator.add_job(duration=1e6)
    few = {"limit": limit, "free": free}
    options = {**few, "queries": queries, "attempts": attempts, "client": client}
    async with emulator.serve() as url:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", QUERIES, url, job_id, json.dumps(options)),
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await process.communicate()
    errors: list[Any] = json.loads(said)
    return errors


async def test_r15_many_queries_need_few_descriptors() -> None:
    """3,000 queries at once under a limit of 1,024 descriptors succeed in their first attempt."""
    queries, limit = (3_000, 1_024) if IN_FULL else (400, 160)
    assert await errors_of(queries, limit=limit, timeout=120) == []


async def test_r15_a_low_bound_fits_a_low_limit() -> None:
    """50 queries at once with 20 free descriptors succeed if ``max_connections`` is below that."""
    assert await errors_of(50, max_connections=15) == []


async def test_r15_a_lack_of_descriptors_passes() -> None:
    """50 queries at once with 20 free descriptors succeed with the default bound and policy."""
    assert await errors_of(50, attempts=4) == []


async def test_r15_a_lack_of_descriptors_is_called_by_its_name() -> None:
    """Each query that cannot open a connection says so, was not sent, and may be repeated."""
    errors = await errors_of(50)
    assert 25 <= len(errors) <= 35
    for text, transient, sent in errors:
        assert "too many open files: " in text
        assert "; lower max_connections or raise the limit" in text
        assert (transient, sent) == (True, False)


async def test_r15_siblings_share_the_bound() -> None:
    """Clients made by ``with_options`` have no connections of their own."""
    server = Smuggler(15, share=0)
    async with serving(server.handle) as served, client_of(served.url, max_connections=2) as client:
        clients = [client, client.with_options(timeout=5), client.with_options(timeout=6)]
        await asyncio.gather(*(one.query(f"av{n}") for one in clients for n in range(10)))
        assert served.accepted == 2


# S14: bytes after a response


def message(status: str, body: str, *, chunked: bool = False) -> bytes:
    """Return a whole response."""
    if not chunked:
        return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    head = f"HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n"
    return f"{head}{len(body):x}\r\n{body}\r\n0\r\n\r\n".encode()


class Smuggler:
    """A server that answers every request, and now and then sends more than it was asked for.

    It sends nothing unasked while a request is under way: from then on nobody can tell whose
    response it is.
    """

    def __init__(self, seed: int, *, share: float = 0.5, greets: bool = False) -> None:
        self.rng = random.Random(seed)
        #: Share of the responses after which it sends more.
        self.share = share
        #: Whether it may send something before the first request on a connection.
        self.greets = greets
        self.smuggled = 0
        self.connections = 0

    def foreign(self) -> bytes:
        """Return the response to something else."""
        rng = self.rng
        size = rng.choice([0, 0, 0, 5_000, 20_000, 300_000])
        padding = f"<!--{' ' * size}-->"
        return rng.choice(
            [
                message("404 Not Found", ERROR("AuditingJobNotFound") + padding),
                message("401 Unauthorized", ERROR("InvalidAccessKeyId")),
                message("451 Unavailable", ERROR("Forbidden")),
                message("200 OK", JOB("another", "Auditing") + padding),
                message("200 OK", JOB("same", "Auditing"), chunked=True),
                b"HTTP/1.1 103 Early Hints\r\n\r\n" + message("404 Not Found", ERROR("NoSuchJob")),
                b"HTTP/1.1 204 No Content\r\n\r\n",
                b"\r\n",
                b"H",
            ]
        )

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection."""
        assert isinstance(reader, Recorder)
        rng = self.rng
        self.connections += 1
        if self.greets and rng.random() < self.share / 10:
            self.smuggled += 1
            writer.write(self.foreign())
        while True:
            head = await reader.request()
            name = head.split()[1].decode().rpartition("/")[2]
            answer = message("200 OK", JOB(name, "Success"), chunked=rng.random() < 0.3)
            if rng.random() >= self.share:
                writer.write(answer)
                continue
            more = self.foreign().replace(b"same", name.encode()) * rng.choice([1, 1, 3])
            self.smuggled += 1
            match rng.choice(["at once", "in parts", "at the next turn", "later"]):
                case "at once":
                    writer.write(answer + more)
                case "in parts":
                    cut = rng.randrange(len(more))
                    writer.write(answer + more[:cut])
                    await asyncio.sleep(0)
                    self.write_unasked(reader.inner, writer, more[cut:])
                case "at the next turn":
                    writer.write(answer)
                    await asyncio.sleep(0)
                    self.write_unasked(reader.inner, writer, more)
                case "later":
                    writer.write(answer)
                    await asyncio.sleep(rng.random() * 0.003)
                    self.write_unasked(reader.inner, writer, more)

    def write_unasked(self, reader: Any, writer: asyncio.StreamWriter, data: bytes) -> None:
        """Write bytes, unless a request is there."""
        if writer.is_closing():
            return
        ready = select.select([writer.get_extra_info("socket").fileno()], [], [], 0)[0]
        if not ready and not reader._buffer:
            writer.write(data)


@asynccontextmanager
async def served_with(
    handler: Any, tls: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[str]:
    """Serve a handler, with or without TLS, and return the URL."""
    async with serving(handler, trusted(folder, monkeypatch) if tls else None) as served:
        yield served.url


async def wrong_results(
    query: Callable[[str], Awaitable[tuple[str, str]]], count: int
) -> list[str]:
    """Query jobs from ten callers at once, and return the results that were not their own."""
    wrong: list[str] = []
    ids = iter(range(count))

    async def caller() -> None:
        for number in ids:
            name = f"av{number}"
            found: object
            try:
                found = await query(name)
            except (LiveAuditError, httpx.HTTPError) as error:
                found = error
            if found != (name, "Success"):
                wrong.append(f"{name}: {found!r}")
            await asyncio.sleep(random.Random(number).choice([0, 0, 0.001, 0.002]))

    await asyncio.gather(*(caller() for _ in range(10)))
    return wrong


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_s14_no_call_gets_a_response_to_another(
    tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that sends responses unasked, in every way, causes no wrong result."""
    # Over TLS nobody can tell a greeting from the session tickets without deciphering it.
    smuggler = Smuggler(14, greets=not tls)
    count = times(10_000) // (4 if tls else 1)
    async with (
        served_with(smuggler.handle, tls, tmp_path, monkeypatch) as url,
        client_of(url, retry=RetryPolicy(attempts=9, base_delay=0.001)) as client,
    ):

        async def query(name: str) -> tuple[str, str]:
            job = await client.query(name)
            return job.job_id, str(job.state)

        wrong = await wrong_results(query, count)
    assert smuggler.smuggled > count / 3
    assert not wrong, (len(wrong), wrong[:10])


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_s14_a_connection_without_a_fault_is_kept(
    tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 queries in a row, with a pause now and then, share one connection."""
    server = Smuggler(14, share=0)
    async with (
        served_with(server.handle, tls, tmp_path, monkeypatch) as url,
        client_of(url) as client,
    ):
        for number in range(100):
            await client.query(f"av{number}")
            await asyncio.sleep(0.01 * (number % 10 == 0))
    assert server.connections == 1


class Unhurried(RetryPolicy):
    """Waits for as long as it may, so that what comes late comes before the next attempt."""

    def delay(self, attempt: Attempt, *, rng: Callable[[], float] = lambda: 1.0) -> float | None:
        """Return the longest delay."""
        return super().delay(attempt, rng=rng)


async def test_s14_a_refused_cancel_is_not_reported_as_done() -> None:
    """A 200 that is smuggled in behind a 500 is the response to no attempt."""
    done = message("200 OK", JOB("av1", "Cancelled"))
    late = iter([False, True] * 4)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, Recorder)
        while True:
            await reader.request()
            writer.write(message("500 Internal Server Error", ERROR("InternalError")))
            if next(late):
                await asyncio.sleep(0.001)
            writer.write(done)

    async with (
        serving(handle) as served,
        client_of(served.url, retry=Unhurried(attempts=8, base_delay=0.01)) as client,
    ):
        with pytest.raises(ServiceUnavailable) as caught:
            await client.cancel("av1")
        assert caught.value.attempts == len(served.requests) == 8
