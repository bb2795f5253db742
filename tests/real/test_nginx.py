"""All calls through a real nginx, and what each of its faults gives."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from daemons import Authority, Daemon, free_port, nginx
from proofs import BACKENDS
from servers import client_over, shorten_holds

from ci_live_audit import (
    AccessDenied,
    Attempt,
    JobState,
    LiveAuditClient,
    RetryPolicy,
    ServiceUnavailable,
    Throttled,
    TransportError,
)
from ci_live_audit.testing import Emulator, frame

pytestmark = pytest.mark.real

LIVE = "rtmp://live.example.com/app/room7"
QUICK = RetryPolicy(attempts=30, base_delay=0.05, throttle_delay=0.05, max_delay=0.2)


@pytest.fixture
def anyio_backend() -> str:
    """Real time, by which callers and servers agree though each has a loop of its own."""
    return "asyncio"


@pytest.fixture
def emulator() -> Emulator:
    return Emulator(rate=math.inf)


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    return Authority(tmp_path, monkeypatch)


@contextlib.asynccontextmanager
async def gateway(
    emulator: Emulator, authority: Authority, folder: Path, **settings: str
) -> AsyncIterator[Daemon]:
    """Run an nginx in front of an emulator."""
    async with emulator.serve() as url:
        with nginx(folder / "nginx", authority, url, **settings).running() as server:
            yield server


def client_of(
    server: Daemon, authority: Authority, backend: str = "own", **options: Any
) -> contextlib.AbstractAsyncContextManager[LiveAuditClient]:
    url = f"https://127.0.0.1:{server.port}"
    return client_over(backend, url, verify=authority.context(), **options)


@pytest.mark.parametrize("backend", BACKENDS)
async def test_all_calls_pass_an_nginx_with_tls(
    emulator: Emulator, authority: Authority, tmp_path: Path, backend: str
) -> None:
    """A job is submitted, queried and cancelled, each with one request."""
    emulator.add_stream(LIVE, script=[frame(0, "Porn", text="直播 <&>")])
    async with (
        gateway(emulator, authority, tmp_path) as server,
        client_of(server, authority, backend) as client,
    ):
        job_id = (await client.submit(LIVE, data_id="直播 <&>")).job_id
        job = await client.query(job_id)
        await client.cancel(job_id)
        assert (job.data_id, job.url) == ("直播 <&>", LIVE)
        assert (await client.query(job_id)).state == JobState.CANCELLED
    assert [arrival.status for arrival in emulator.arrivals] == [200] * 4


@pytest.mark.parametrize("backend", BACKENDS)
async def test_what_a_gateway_compresses_is_read(
    emulator: Emulator, authority: Authority, tmp_path: Path, backend: str
) -> None:
    """A gateway that asks for gzip by itself, and passes it on unasked, is understood."""
    job_id = emulator.add_job(duration=0, script=[frame(0, "Porn") for _ in range(200)])
    inner = free_port()
    async with emulator.serve() as url:
        compressing = f"""
server {{
    listen 127.0.0.1:{inner};
    gzip on;
    gzip_types application/xml;
    gzip_proxied any;
    gzip_min_length 0;
    location / {{ proxy_pass {url}; proxy_set_header Host $http_host; }}
}}"""
        asking = "proxy_set_header Accept-Encoding gzip;"
        upstream = f"http://127.0.0.1:{inner}"
        server = nginx(tmp_path / "n", authority, upstream, http=compressing, location=asking)
        with server.running():
            async with client_of(server, authority, backend) as client:
                assert len((await client.query(job_id)).snapshots) == 200
                submitted = await client.submit(LIVE)
                await client.cancel(submitted.job_id)
    assert {line.split()[-1] for line in server.log()} == {"gzip"}


def limited(status: int) -> dict[str, str]:
    """Return the settings of an nginx that takes two requests a second."""
    return {
        "http": "limit_req_zone $binary_remote_addr zone=calls:1m rate=2r/s;",
        "location": f"limit_req zone=calls; limit_req_status {status};",
    }


async def test_a_limit_of_requests_is_throttling(
    emulator: Emulator, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `limit_req` refuses with 429 is repeated until it passes, and a submit happens once."""
    shorten_holds(monkeypatch, 0.2)
    job_id = emulator.add_job()
    attempts: list[Attempt] = []
    async with (
        gateway(emulator, authority, tmp_path, **limited(429)) as server,
        client_of(server, authority, retry=QUICK, on_attempt=attempts.append) as client,
    ):
        await asyncio.gather(
            client.query(job_id), client.cancel(job_id), client.submit(LIVE), client.submit(LIVE)
        )
        refused = sum(" 429 " in line for line in server.log())
    assert sum(isinstance(attempt.error, Throttled) for attempt in attempts) == refused > 0
    assert len(emulator.jobs) == 3
    assert [arrival.status for arrival in emulator.arrivals] == [200] * 4


async def test_a_limit_of_requests_may_look_like_an_outage(
    emulator: Emulator, authority: Authority, tmp_path: Path
) -> None:
    """With nginx's own 503, queries and cancels are repeated; a submit is not, and says why."""
    job_id = emulator.add_job()
    async with (
        gateway(emulator, authority, tmp_path, **limited(503)) as server,
        client_of(server, authority, retry=QUICK) as client,
    ):
        await asyncio.gather(client.query(job_id), client.query(job_id), client.cancel(job_id))
        with pytest.raises(ServiceUnavailable) as caught:
            await client.submit(LIVE)
    error = caught.value
    assert (error.status, error.attempts, error.may_have_happened) == (503, 1, True)
    assert str(error).count("503") == 1
    assert [arrival.method for arrival in emulator.arrivals].count("GET") == 2
    assert len(emulator.jobs) == 1


async def test_the_end_of_an_idle_connection_costs_no_call(
    emulator: Emulator, authority: Authority, tmp_path: Path
) -> None:
    """With `keepalive_timeout 1s`, calls made just then succeed, and no submit happens twice."""
    async with (
        gateway(emulator, authority, tmp_path, server="keepalive_timeout 1s;") as server,
        client_of(server, authority) as client,
    ):

        async def stream(number: int) -> None:
            pause = 0.98 + number / 1000
            await client.query(first)
            await asyncio.sleep(pause)
            job_id = (await client.submit(f"{LIVE}/{number}")).job_id
            for call in (client.query, client.cancel):
                await asyncio.sleep(pause)
                await call(job_id)

        first = emulator.add_job()
        await asyncio.gather(*(stream(number) for number in range(40)))
        await client.cancel(first)
    assert len(emulator.jobs) == 41
    assert {job.state(emulator.clock()) for job in emulator.jobs.values()} == {JobState.CANCELLED}


async def test_a_gateway_that_reloads_costs_no_call(
    emulator: Emulator, authority: Authority, tmp_path: Path
) -> None:
    """The processes that served before end, with their connections, while new ones serve."""
    async with (
        gateway(emulator, authority, tmp_path) as server,
        client_of(server, authority) as client,
    ):
        job_id = emulator.add_job()
        for number in range(5):
            server.reload()
            async with asyncio.TaskGroup() as group:
                for _ in range(20):
                    group.create_task(client.query(job_id))
                group.create_task(client.submit(f"{LIVE}/{number}"))
    assert len(emulator.jobs) == 6
    assert {arrival.status for arrival in emulator.arrivals} == {200}


async def test_a_connection_that_serves_one_request_is_enough(
    emulator: Emulator, authority: Authority, tmp_path: Path
) -> None:
    """With `keepalive_timeout 0`, every call has a connection of its own."""
    job_id = emulator.add_job()
    async with (
        gateway(emulator, authority, tmp_path, server="keepalive_timeout 0;") as server,
        client_of(server, authority) as client,
    ):
        for _ in range(3):
            await client.query(job_id)
    assert len(emulator.arrivals) == 3


async def test_a_gateway_without_its_service_is_told_once(
    authority: Authority, tmp_path: Path
) -> None:
    """Its page is no document; a query is repeated, a submit is not."""
    with nginx(tmp_path / "n", authority, f"http://127.0.0.1:{free_port()}").running() as server:
        retry = RetryPolicy(attempts=2, base_delay=0.01)
        async with client_of(server, authority, retry=retry) as client:
            for call, attempts in ((client.query, 2), (client.cancel, 2), (client.submit, 1)):
                with pytest.raises(ServiceUnavailable) as caught:
                    await call(LIVE if call == client.submit else "av1")
                assert (caught.value.status, caught.value.attempts) == (502, attempts)
                assert str(caught.value).count("502") == 1


async def test_a_rewritten_host_is_a_refused_signature(
    emulator: Emulator, authority: Authority, tmp_path: Path
) -> None:
    """By default nginx sends the name of its upstream: then no signature can match."""
    async with (
        gateway(emulator, authority, tmp_path, host="elsewhere.example.com") as server,
        client_of(server, authority) as client,
    ):
        with pytest.raises(AccessDenied, match="SignatureDoesNotMatch") as caught:
            await client.submit(LIVE)
    assert caught.value.attempts == 1
    assert not emulator.jobs


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_certificate_of_nobody_known_is_told_at_once(
    emulator: Emulator, authority: Authority, tmp_path: Path, backend: str
) -> None:
    """It is not repeated, by no call and no wait."""
    (tmp_path / "other").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        stranger = Authority(tmp_path / "other", patch)
    async with (
        gateway(emulator, stranger, tmp_path) as server,
        client_of(server, authority, backend, retry=QUICK) as client,
    ):
        for call in (client.query, client.cancel, client.wait):
            with pytest.raises(TransportError, match=r"(?i)certificate") as caught:
                await call("av1")
            assert (caught.value.attempts, caught.value.transient) == (1, False)
    assert not emulator.arrivals
