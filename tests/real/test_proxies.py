"""All calls through real proxies, squid and tinyproxy, and what each of their faults gives."""

from __future__ import annotations

import contextlib
import math
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest
from daemons import HERE, PROXIES, Authority, Daemon, free_port, nginx
from proofs import BACKENDS
from servers import client_over, eventually

from ci_live_audit import JobState, LiveAuditClient, RetryPolicy, TransportError
from ci_live_audit.testing import Emulator

pytestmark = pytest.mark.real

LIVE = "rtmp://live.example.com/app/room7"
TWICE = RetryPolicy(attempts=2, base_delay=0.01)


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


@pytest.fixture
async def url(emulator: Emulator, authority: Authority, tmp_path: Path) -> AsyncIterator[str]:
    """Serve the emulator with TLS, on an address for which clients ask a proxy."""
    async with emulator.serve() as plain:
        with nginx(tmp_path / "nginx", authority, plain).running() as server:
            yield f"https://{HERE}:{server.port}"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder that a server which gives up being root can reach, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name, "proxy")


@pytest.fixture(params=PROXIES)
def make(request: pytest.FixtureRequest, folder: Path) -> Callable[..., Daemon]:
    """Make a proxy of each kind."""
    return partial(PROXIES[request.param], folder)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def through(
    url: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., contextlib.AbstractAsyncContextManager[LiveAuditClient]]:
    """Open a client that goes through a proxy, with a name and a password or without."""

    def through(
        proxy: Daemon, backend: str = "own", *, password: str = "", to: str = url
    ) -> contextlib.AbstractAsyncContextManager[LiveAuditClient]:
        login = f"user:{quote(password, safe='')}@" if password else ""
        monkeypatch.setenv("HTTPS_PROXY", f"http://{login}127.0.0.1:{proxy.port}")
        return client_over(backend, to, verify=authority.context(), retry=TWICE)

    return through


Through = Callable[..., contextlib.AbstractAsyncContextManager[LiveAuditClient]]


async def all_calls(client: LiveAuditClient) -> None:
    job_id = (await client.submit(LIVE)).job_id
    await client.query(job_id)
    await client.cancel(job_id)
    assert (await client.query(job_id)).state == JobState.CANCELLED


async def refusals(client: LiveAuditClient) -> list[TransportError]:
    """Return the errors of all calls, and of a wait if no waiting would help."""
    errors: list[TransportError] = []
    for call, argument in ((client.submit, LIVE), (client.query, "av1"), (client.cancel, "av1")):
        with pytest.raises(TransportError) as caught:
            await call(argument)
        errors.append(caught.value)
    if not errors[0].transient:
        with pytest.raises(TransportError) as caught:
            await client.wait("av1")
        errors.append(caught.value)
    return errors


@pytest.mark.parametrize("login", [False, True], ids=["anybody", "known"])
async def test_all_calls_pass_a_proxy(
    make: Callable[..., Daemon], through: Through, emulator: Emulator, backend: str, login: bool
) -> None:
    """A job is submitted, queried and cancelled; the proxy sees tunnels, and nothing in them."""
    with make(login=login).running() as proxy:
        async with through(proxy, backend, password=proxy.password if login else "") as client:
            await all_calls(client)
        assert await eventually(lambda: "CONNECT" in "".join(proxy.log()))
        assert not any(word in "".join(proxy.log()) for word in ("auditing", "q-sign", "AKID"))
    assert [arrival.status for arrival in emulator.arrivals] == [200] * 4


@pytest.mark.parametrize("password", ["", "mistyped"], ids=["none", "wrong"])
async def test_a_wrong_password_is_told_at_once(
    make: Callable[..., Daemon], through: Through, emulator: Emulator, backend: str, password: str
) -> None:
    """It is a 407 or a 401, which neither a call nor a wait repeats, and not quoted."""
    with make(login=True).running() as proxy:
        async with through(proxy, backend, password=password) as client:
            errors = await refusals(client)
    for error in errors:
        assert re.search("401|407", str(error))
        assert "mistyped" not in f"{error!r} {error}"
        assert (error.attempts, error.transient, error.may_have_happened) == (1, False, False)
    assert not emulator.arrivals


FORBIDDEN = {
    "squid": "http_access deny all",
    "tinyproxy": "ConnectPort 1",
}


@pytest.mark.parametrize("kind", PROXIES)
async def test_a_proxy_that_forbids_is_told_at_once(
    through: Through, emulator: Emulator, folder: Path, backend: str, kind: str
) -> None:
    """It is a 403, which neither a call nor a wait repeats."""
    with PROXIES[kind](folder, rules=FORBIDDEN[kind]).running() as proxy:
        async with through(proxy, backend) as client:
            errors = await refusals(client)
    for error in errors:
        assert "403" in str(error)
        assert (error.attempts, error.transient, error.may_have_happened) == (1, False, False)
    assert not emulator.arrivals


async def test_a_proxy_that_is_down_is_named(
    make: Callable[..., Daemon], through: Through, emulator: Emulator, backend: str
) -> None:
    """It may come up again, so every call is repeated; nothing goes past it."""
    proxy = make()
    async with through(proxy, backend, password=proxy.password) as client:
        errors = await refusals(client)
        for error in errors:
            assert (error.attempts, error.transient, error.may_have_happened) == (2, True, False)
            assert proxy.password not in str(error)
            assert quote(proxy.password, safe="") not in str(error)
        assert not emulator.arrivals
        with proxy.running():
            await all_calls(client)


async def test_a_service_that_is_down_behind_a_proxy_is_awaited(
    make: Callable[..., Daemon], through: Through, backend: str
) -> None:
    """A tunnel that the proxy cannot open leaves the request unsent, so a submit is repeated."""
    with make().running() as proxy:
        async with through(proxy, backend, to=f"https://{HERE}:{free_port()}") as client:
            errors = await refusals(client)
    for error in errors:
        assert (error.attempts, error.transient, error.may_have_happened) == (2, True, False)


async def test_a_proxy_that_is_restarted_costs_no_call(
    make: Callable[..., Daemon], through: Through, emulator: Emulator
) -> None:
    """Its tunnels are cut; the next calls open new ones."""
    proxy = make()
    with proxy.running():
        async with through(proxy) as client:
            job_id = (await client.submit(LIVE)).job_id
            for _ in range(2):
                await client.query(job_id)
                proxy.stop()
                proxy.start()
            await client.submit(LIVE)
            await client.cancel(job_id)
    assert len(emulator.jobs) == 2
    assert [arrival.status for arrival in emulator.arrivals] == [200] * 5


@pytest.mark.parametrize("exception", [HERE, "*"])
async def test_an_excepted_host_is_reached_directly(
    make: Callable[..., Daemon],
    through: Through,
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    exception: str,
) -> None:
    """With `NO_PROXY`, the proxy may as well be down."""
    monkeypatch.setenv("NO_PROXY", exception)
    async with through(make()) as client:
        await all_calls(client)
    assert len(emulator.arrivals) == 4
