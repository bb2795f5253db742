"""R14: wrong use is an error that says what to do, and correct use still works afterwards."""

from __future__ import annotations

import asyncio
import gc
import math
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import httpx
import httpx2
import pytest
import requests as sync_requests
from proofs import times
from servers import Served, answering, client_for, eventually, serving, silent

from ci_live_audit import (
    Attempt,
    ConfigurationError,
    Credentials,
    LiveAuditClient,
    LocalRateLimiter,
    RetryPolicy,
)
from ci_live_audit.testing import ChaosProxy, Emulator, WireFault

pytestmark = pytest.mark.waits  # for sockets and threads

JOB = b"<Response><JobsDetail><JobId>a</JobId><State>Success</State></JobsDetail></Response>"


def client_of(url: str, **options: Any) -> LiveAuditClient:
    return client_for(url, **({"timeout": 5.0} | options))


class Server:
    """A server in a thread with its own loop, so that a test may use several loops."""

    def __enter__(self) -> Served:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._serving = serving(answering(JOB))
        served = self._run(self._serving.__aenter__())
        assert isinstance(served, Served)
        return served

    def __exit__(self, *_: object) -> None:
        self._run(self._serving.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)


# Event loops


async def follow(client: LiveAuditClient) -> None:
    async with client.as_completed(["a"]) as outcomes:
        async for outcome in outcomes:
            outcome.unwrap()


async def watch(client: LiveAuditClient) -> None:
    async with client.watch("a") as findings:
        async for _ in findings:
            pass


USES: dict[str, Callable[[LiveAuditClient], Coroutine[Any, Any, Any]]] = {
    "query": lambda client: client.query("a"),
    "cancel": lambda client: client.cancel("a"),
    "submit": lambda client: client.submit("rtmp://live.example.com/app/a"),
    "wait": lambda client: client.wait("a"),
    "as_completed": follow,
    "watch": watch,
    "sibling": lambda client: client.with_options(timeout=1).query("a"),
    "aclose": lambda client: client.aclose(),
}


@pytest.mark.parametrize("use", USES)
def test_r14_a_second_event_loop_gets_an_error(use: str) -> None:
    """A client that was used on one loop refuses another, and still works on its own."""
    with Server() as served, asyncio.Runner() as first:
        client = client_of(served.url)
        first.run(client.query("a"))
        with pytest.raises(ConfigurationError, match=r"another event loop.*make one for each"):
            asyncio.run(USES[use](client))
        first.run(client.query("a"))
        assert len(served.requests) == 2
        first.run(client.aclose())
        assert served.accepted == 1


@pytest.mark.parametrize("shared", ["limiter", "provider"])
def test_r14_two_loops_share_a_provider_but_no_limiter(shared: str) -> None:
    """A limiter refuses a second event loop; a credentials provider serves several."""
    limiter = LocalRateLimiter(1000)

    async def provider() -> Credentials:
        await asyncio.sleep(0)
        return Credentials("AKIDEXAMPLE", "secretexample")

    options: dict[str, Any] = (
        {"limiter": limiter} if shared == "limiter" else {"credentials": provider}
    )

    async def query_five_times(url: str) -> None:
        async with client_of(url, **options) as client:
            await asyncio.gather(*(client.query("a") for _ in range(5)))

    with Server() as served, asyncio.Runner() as first:
        first.run(query_five_times(served.url))
        if shared == "limiter":
            with pytest.raises(ConfigurationError, match=r"limiter .*make one for each loop"):
                asyncio.run(query_five_times(served.url))
        else:
            asyncio.run(query_five_times(served.url))
        first.run(query_five_times(served.url))
        assert len(served.requests) == (10 if shared == "limiter" else 15)


def test_r14_two_threads_cannot_share_a_client() -> None:
    """If two threads use a new client on two loops at once, at least one gets an error."""
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with Server() as served:
            for _ in range(times(300)):
                use_in_two_threads(served.url)
    finally:
        sys.setswitchinterval(switching)


def use_in_two_threads(url: str) -> None:
    client = client_of(url)
    start = threading.Barrier(2)
    results: list[object] = []

    async def use() -> None:
        start.wait()
        try:
            async with client:
                results.append((await client.query("a")).job_id)
        except ConfigurationError as error:
            results.append(error)

    threads = [threading.Thread(target=asyncio.run, args=(use(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [it for it in results if isinstance(it, ConfigurationError)]
    assert len(results) == 2
    assert len(refused) >= 1, "both could use it"
    assert all("make one for each" in str(it) or "closed" in str(it) for it in refused), refused


@pytest.mark.parametrize("use", list(USES))
def test_r14_without_a_loop_a_call_is_an_error(use: str) -> None:
    """A call that is driven by hand, or by another framework, says that it needs asyncio."""
    with Server() as served:
        client = client_of(served.url)
        call = USES[use](client)
        with pytest.raises(ConfigurationError, match="no asyncio event loop is running"):
            call.send(None)
        call.close()
        assert served.accepted == 0
        if use != "aclose":
            asyncio.run(query_and_close(client))


def test_r14_without_a_loop_a_limiter_is_an_error() -> None:
    """A limiter that is used outside of a loop says so, and works within one."""
    limiter = LocalRateLimiter(10)
    with pytest.raises(ConfigurationError, match="event loop"):
        limiter.acquire().send(None)
    with pytest.raises(ConfigurationError, match="event loop"):
        limiter.hold(1)
    assert asyncio.run(limiter.acquire()) >= 0


async def query_and_close(client: LiveAuditClient) -> None:
    async with client:
        assert (await client.query("a")).job_id == "a"


# Fork

FORK = """
import asyncio, os, sys, warnings
from ci_live_audit import ConfigurationError, Credentials, LiveAuditClient
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forks where threads are

def new():
    return LiveAuditClient("examplebucket-1250000000", "ap-beijing", endpoint=sys.argv[1],
                           credentials=Credentials("AKIDEXAMPLE", "secretexample"))

def in_child(use):
    sys.stdout.flush()
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
        return
    try:
        use()
    except ConfigurationError as error:
        print("child:", error, flush=True)
    except BaseException as error:
        print("child failed:", repr(error), flush=True)
    else:
        print("child went on", flush=True)
    os._exit(0)

def by_hand(coroutine):
    coroutine.send(None)

async def both(client):
    async with client:
        await client.query("a")
        await client.query("a")

client = new()
"""
FORKS: dict[str, tuple[str, str]] = {
    "within a loop, by hand": (
        """
        async def main():
            await client.query("a")
            in_child(lambda: by_hand(client.query("a")))
            await client.query("a")
            await client.aclose()
        asyncio.run(main())
        """,
        "no asyncio event loop is running",
    ),
    "within a loop, on a new one": (
        """
        def on_a_new_one():
            asyncio._set_running_loop(None)
            asyncio.run(client.query("a"))
        async def main():
            await client.query("a")
            in_child(on_a_new_one)
            await client.query("a")
            await client.aclose()
        asyncio.run(main())
        """,
        "make one for each",
    ),
    "outside of a loop, on a new one": (
        """
        with asyncio.Runner() as runner:
            runner.run(client.query("a"))
            in_child(lambda: asyncio.run(client.query("a")))
            runner.run(client.query("a"))
            runner.run(client.aclose())
        """,
        "make one for each",
    ),
    "outside of a loop, on the inherited one": (
        """
        with asyncio.Runner() as runner:
            runner.run(client.query("a"))
            in_child(lambda: runner.run(client.query("a")))
            runner.run(client.query("a"))
            runner.run(client.aclose())
        """,
        "process; make one for each",
    ),
    "outside of a loop, closing on the inherited one": (
        """
        with asyncio.Runner() as runner:
            runner.run(client.query("a"))
            in_child(lambda: runner.run(client.aclose()))
            runner.run(client.query("a"))
            runner.run(client.aclose())
        """,
        "process; make one for each",
    ),
    "a client of its own": (
        """
        with asyncio.Runner() as runner:
            runner.run(client.query("a"))
            in_child(lambda: asyncio.run(both(new())))
            runner.run(client.query("a"))
            runner.run(client.aclose())
        """,
        "child went on",
    ),
    "a client that was not used yet": (
        """
        in_child(lambda: asyncio.run(both(client)))
        with asyncio.Runner() as runner:
            runner.run(both(client))
        """,
        "child went on",
    ),
}


@pytest.mark.parametrize("way", FORKS)
def test_r14_after_a_fork_the_child_gets_an_error_and_the_parent_goes_on(way: str) -> None:
    """A child cannot use an inherited client, and the parent's connection is not harmed."""
    program, expected = FORKS[way]
    with Server() as served:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", FORK + textwrap.dedent(program), served.url],
            capture_output=True,
            check=False,
            text=True,
            timeout=30,
        )
        assert done.stderr == ""
        assert done.returncode == 0
        assert expected in done.stdout
        assert "failed" not in done.stdout
        by_child = 2 if expected == "child went on" else 0
        assert len(served.requests) == 2 + by_child
        assert served.accepted == (2 if by_child else 1)


# Closing


async def test_r14_a_closed_client_takes_no_call() -> None:
    """Every use of a closed client says that a new one is needed, and nothing is sent."""
    async with serving(answering(JOB)) as served:
        client = client_of(served.url)
        sibling = client.with_options(timeout=1)
        async with client:
            await client.query("a")
        for use in set(USES) - {"aclose"}:
            for closed in (client, sibling):
                with pytest.raises(ConfigurationError, match="closed; make a new one"):
                    await USES[use](closed)
        assert len(served.requests) == 1
        await client.aclose()
        await query_and_close(client_of(served.url))


async def test_r14_closing_many_times_at_once_does_no_harm() -> None:
    """Closing ten times at once and once more closes the connections, without an error."""
    async with serving(answering(JOB)) as served:
        client = client_of(served.url)
        await asyncio.gather(*(client.query("a") for _ in range(5)))
        await asyncio.gather(*(client.aclose() for _ in range(10)))
        await client.aclose()
        assert await served.all_closed()


async def queued(url: str) -> LiveAuditClient:
    client = client_of(url, rate=0.001)
    await client.query("a")
    return client


async def waiting_for_credentials(url: str) -> LiveAuditClient:
    async def provider() -> Credentials:
        await asyncio.sleep(100)
        raise AssertionError

    return client_of(url, credentials=provider)


async def waiting_for_a_thread(url: str) -> LiveAuditClient:
    return client_of(url, credentials=partial(slow_provider, time.monotonic() + 0.1))


def slow_provider(until: float) -> Credentials:
    time.sleep(max(until - time.monotonic(), 0))
    return Credentials("AKIDEXAMPLE", "secretexample")


async def waiting_to_retry(url: str) -> LiveAuditClient:
    retry = RetryPolicy(base_delay=1e3, max_delay=1e3, deadline=1e6)
    return client_of("http://127.0.0.1:1", retry=retry)


async def waiting_for_a_response(url: str) -> LiveAuditClient:
    return client_of(url)


async def in_a_handshake(url: str) -> LiveAuditClient:
    return client_of(url.replace("http:", "https:"))


CALLS = [
    queued,
    waiting_for_credentials,
    waiting_for_a_thread,
    waiting_to_retry,
    waiting_for_a_response,
    in_a_handshake,
]


@pytest.mark.parametrize("place", CALLS)
async def test_r14_closing_ends_calls_at_every_place(
    place: Callable[[str], Awaitable[LiveAuditClient]],
) -> None:
    """Closing ends calls wherever they wait: slot, credentials, handshake, response or retry."""
    handler = silent() if place in {waiting_for_a_response, in_a_handshake} else answering(JOB)
    async with serving(handler) as served:
        client = await place(served.url)
        calls = [asyncio.create_task(client.query("a")) for _ in range(5)]
        await asyncio.sleep(0.03)
        await client.aclose()
        results = await asyncio.gather(*calls, return_exceptions=True)
        for it in results:
            assert isinstance(it, ConfigurationError)
            assert "closed" in str(it)
        assert await served.all_closed()


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_r14_a_given_client_survives_the_closing(library: Any) -> None:
    """A foreign client stays open for the next user; once its owner closes it, calls say so."""
    async with serving(answering(JOB)) as served:
        async with library.AsyncClient(trust_env=False) as http:
            for _ in range(2):
                await query_and_close(client_of(served.url, http_client=http))
            client = client_of(served.url, http_client=http)
        with pytest.raises(ConfigurationError, match=r"http_client.*closed"):
            await client.query("a")
        with pytest.raises(ConfigurationError, match=r"http_client.*closed"):
            client_of(served.url, http_client=http)


def test_r14_a_forgotten_client_warns_once() -> None:
    """A client that was used and not closed gives one ResourceWarning that says what to do."""

    async def forget(url: str) -> None:
        client = client_of(url)
        siblings = [client.with_options(timeout=1) for _ in range(3)]
        await asyncio.gather(client.query("a"), *(it.query("a") for it in siblings))
        del client, siblings

    with Server() as served, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(forget(served.url))
        gc.collect()
        texts = [str(it.message) for it in caught if "client of" in str(it.message)]
        assert texts == [f'the client of {served.url} was not closed: use "async with" or aclose()']
        assert {it.category for it in caught} == {ResourceWarning}
        caught.clear()  # warnings keep their source
        gc.collect()


@pytest.mark.parametrize("kind", ["never used", "closed", "sibling", "given", "refused"])
def test_r14_a_client_with_nothing_open_does_not_warn(kind: str) -> None:
    """A client that was unused, was closed or has no connections of its own gives no warning."""

    async def use(url: str) -> None:
        if kind == "given":
            async with httpx.AsyncClient(trust_env=False) as http:
                await client_of(url, http_client=http).query("a")
            return
        client = client_of(url)
        if kind == "refused":
            with pytest.raises(ConfigurationError):
                await client.query("../a")
        elif kind in {"closed", "sibling"}:
            async with client:
                await client.with_options(timeout=1).query("a")
            if kind == "sibling":
                client.with_options(timeout=1)

    with Server() as served, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(use(served.url))
        gc.collect()
    assert [str(it.message) for it in caught] == []


# Arguments


async def async_hook(attempt: Attempt) -> None:
    """Do nothing; nobody would await it."""


class AsyncHook:
    async def __call__(self, attempt: Attempt) -> None: ...
    async def method(self, attempt: Attempt) -> None: ...


BAD: dict[str, list[Any]] = {
    "bucket": [None, 5, b"examplebucket-1250000000", "", "examplebucket"],
    "region": [5, b"ap-beijing", "beijing"],
    "credentials": [5, "AKID", ("AKID", "key"), object()],
    "rate": ["20", b"20", [], math.nan, 0, -1, {}],
    "limiter": [5, "20", object(), 20.0],
    "retry": [None, 4, "never", {"attempts": 1}],
    "timeout": [None, "30", b"30", math.nan, math.inf, 0, -1, [30]],
    "endpoint": [5, b"http://localhost", "localhost", "ftp://localhost", ""],
    "http_client": [5, "httpx", object(), httpx, httpx.AsyncClient, httpx2.AsyncClient],
    "on_attempt": [
        *(5, "print", async_hook, partial(async_hook), AsyncHook(), AsyncHook().method),
    ],
    "max_body": [None, "64", 1.5, 0, -1, b"1", True],
    "max_memory": [None, "64", 1.5, math.inf, 0, -1, True],
    "max_connections": [None, "10", 1.5, math.inf, 0, -1, True],
    "now": [5, "now", None],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(name, value, id=f"{name}-{type(value).__name__}-{at}")
        for name, values in BAD.items()
        for at, value in enumerate(values)
    ],
)
def test_r14_options_of_wrong_types_are_refused_at_once(name: str, value: Any) -> None:
    """An option of a wrong type is named when the client is made, not in a later call."""
    options = {"bucket": "examplebucket-1250000000", "region": "ap-beijing", name: value}
    with pytest.raises(ConfigurationError, match=name):
        LiveAuditClient(**({"credentials": Credentials("a", "b")} | options))


@pytest.mark.parametrize("library", [httpx.Client, httpx2.Client, sync_requests.Session])
def test_r14_a_blocking_http_client_is_refused(library: Any) -> None:
    """A synchronous HTTP client, which would block the loop, is refused."""
    with library() as http, pytest.raises(ConfigurationError, match=r"http_client.*async"):
        client_of("http://127.0.0.1:1", http_client=http)


@pytest.mark.parametrize("name", list(RetryPolicy.__annotations__))
@pytest.mark.parametrize("value", ["4", None, 0, -1, math.nan, [], b"1"], ids=repr)
def test_r14_numbers_of_a_retry_policy_are_checked(name: str, value: Any) -> None:
    """A number of a retry policy that cannot be is named when the policy is made."""
    with pytest.raises(ConfigurationError, match=name):
        RetryPolicy(**{name: value})


NO_SECONDS: list[Any] = ["10", 0, -1, math.nan, []]
BAD_ARGUMENTS: list[tuple[str, Any]] = [
    *[("interval", value) for value in (*NO_SECONDS, None, math.inf)],
    *[("timeout", value) for value in NO_SECONDS],
    *[("job_id", value) for value in (None, 5, b"a", object())],
]


async def poll(client: LiveAuditClient, use: str, ids: Any, **options: Any) -> None:
    if use == "wait":
        await client.wait(ids, **options)
        return
    async with getattr(client, use)(ids, **options) as found:
        async for _ in found:
            pass


@pytest.mark.parametrize("use", ["wait", "as_completed", "watch"])
@pytest.mark.parametrize(("name", "value"), BAD_ARGUMENTS)
async def test_r14_arguments_of_polling_are_checked(use: str, name: str, value: Any) -> None:
    """Wrong intervals, timeouts and ids are named in the error, and nothing is sent."""
    emulator = Emulator()
    options: dict[str, Any] = {} if name == "job_id" else {name: value}
    ids = value if name == "job_id" else "a" if use == "wait" else ["a"]
    async with emulator.client() as client:
        with pytest.raises(ConfigurationError, match=name):
            await poll(client, use, ids, **options)
    assert emulator.arrivals == []


def hook_returning_a_coroutine(attempt: Attempt) -> object:
    return async_hook(attempt)


async def test_r14_a_hook_that_turns_out_to_be_async_does_no_harm() -> None:
    """A hook that returns a coroutine costs a RuntimeWarning at most; the call succeeds."""
    emulator = Emulator()
    job_id = emulator.add_job()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with emulator.client(on_attempt=hook_returning_a_coroutine) as client:
            assert (await client.query(job_id)).job_id == job_id
        gc.collect()
    assert all(it.category is RuntimeWarning for it in caught)


async def test_r14_closing_while_faults_rage_leaves_nothing() -> None:
    """A client closed during slow, cut and reset responses leaves no connection and no task."""
    async with serving(answering(JOB)) as served, ChaosProxy(served.url) as proxy:
        before = len(asyncio.all_tasks())
        for at in range(times(100)):
            proxy.clear()
            proxy.inject(WireFault.slow(10, 0.001), share=0.5)
            proxy.inject(WireFault.stall(50), share=0.3)
            proxy.inject(WireFault.reset(20), share=0.5)
            client = client_of(proxy.url)
            calls = [asyncio.create_task(client.query("a")) for _ in range(5)]
            await asyncio.sleep(0.001 * (at % 10))
            await asyncio.gather(client.aclose(), client.aclose())
            for it in await asyncio.gather(*calls, return_exceptions=True):
                assert not isinstance(it, BaseException) or "closed" in str(it)
        assert await eventually(lambda: not proxy.open and len(asyncio.all_tasks()) <= before + 1)
