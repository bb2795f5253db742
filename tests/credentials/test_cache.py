"""The credentials cache: its sources, and when it renews what they provide."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from clocks import run_tasks_eagerly
from keys import ID, KEY, PAIR, TOKEN, TRIPLE, chain, plain, printed, with_locals

from ci_live_audit.credentials.cache import CredentialCache
from ci_live_audit.credentials.chain import default_chain
from ci_live_audit.credentials.values import Credentials
from ci_live_audit.errors import ConfigurationError, CredentialsError


class Properties:
    """A credential object of Tencent's SDKs."""

    @property
    def secret_id(self) -> str:
        return ID

    @property
    def secret_key(self) -> str:
        return KEY

    @property
    def token(self) -> str | None:
        return TOKEN


class Info:
    """A credential object that returns all three at once, and has other attributes."""

    secret_id = secret_key = token = "torn"

    def get_credential_info(self) -> tuple[str, str, str | None]:
        return ID, KEY, TOKEN


class CallableObject:
    """A callable object."""

    def __call__(self) -> Credentials:
        return TRIPLE


class AsyncCallableObject:
    """An asynchronous callable object."""

    async def __call__(self) -> Credentials:
        return TRIPLE

    async def method(self) -> Credentials:
        return TRIPLE


def provide(credentials: Credentials = TRIPLE) -> Credentials:
    return credentials


async def provide_async(credentials: Credentials = TRIPLE) -> Credentials:
    return credentials


def deferred(give: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
    """Return a plain function that returns an awaitable, which only its call shows."""
    return lambda: give()  # noqa: PLW0108 - a function, not the async function it calls


@pytest.mark.waits
class TestSources:
    """Sources of all kinds. Those that are not async run in a thread, which needs real time."""

    @pytest.mark.parametrize(
        "source",
        [
            pytest.param(TRIPLE, id="value"),
            pytest.param(provide, id="function"),
            pytest.param(provide_async, id="async function"),
            pytest.param(partial(provide, TRIPLE), id="partial"),
            pytest.param(partial(provide_async, TRIPLE), id="async partial"),
            pytest.param(CallableObject(), id="callable object"),
            pytest.param(AsyncCallableObject(), id="async callable object"),
            pytest.param(AsyncCallableObject().method, id="async method"),
            pytest.param(deferred(provide_async), id="function returning an awaitable"),
            pytest.param(plain(TRIPLE), id="attributes"),
            pytest.param(Properties(), id="properties"),
            pytest.param(Info(), id="get_credential_info"),
        ],
    )
    async def test_each_kind_of_source(self, source: Any) -> None:
        """Every kind of source provides the same credentials."""
        assert await CredentialCache(source).get() == TRIPLE

    @pytest.mark.parametrize("token", [None, ""])
    async def test_an_empty_token_of_an_object_is_none(self, token: str | None) -> None:
        """An empty token, which the vendor's objects have for none, becomes None."""
        source = SimpleNamespace(secret_id=ID, secret_key=KEY, token=token)
        assert await CredentialCache(source).get() == PAIR
        info: Any = SimpleNamespace(get_credential_info=lambda: (ID, KEY, token))
        assert await CredentialCache(info).get() == PAIR

    async def test_an_object_is_read_every_time(self) -> None:
        """A key that changes in a credential object is used from then on."""
        source = SimpleNamespace(secret_id="a", secret_key="b", token="c")
        cache = CredentialCache(source)
        assert await cache.get() == Credentials("a", "b", "c")
        source.secret_id, source.secret_key, source.token = "d", "e", None
        assert await cache.get() == Credentials("d", "e")

    async def test_code_that_may_block_runs_in_a_thread(self) -> None:
        """Functions, properties and methods of a source run in a worker thread."""
        threads: list[int] = []

        class Blocking:
            token = None
            secret_key = KEY

            @property
            def secret_id(self) -> str:
                threads.append(threading.get_ident())
                return ID

            def get(self) -> Credentials:
                return Credentials(self.secret_id, self.secret_key)

            def info(self) -> tuple[str, str, None]:
                return self.secret_id, self.secret_key, None

        info: Any = SimpleNamespace(get_credential_info=Blocking().info)
        sources: list[Any] = [Blocking(), Blocking().get, info]
        for source in sources:
            assert await CredentialCache(source).get() == PAIR
        assert threads
        assert threading.get_ident() not in threads

    async def test_an_async_provider_runs_on_the_loop(self) -> None:
        """An async provider runs on the caller's loop."""
        seen = []

        async def provider() -> Credentials:
            seen.append(asyncio.get_running_loop())
            return PAIR

        await CredentialCache(provider).get()
        await CredentialCache(deferred(provider)).get()
        assert seen == [asyncio.get_running_loop()] * 2

    @pytest.mark.parametrize(
        "source",
        [None, 5, "canary", b"canary", {"secret_id": ID}, (ID, KEY), SimpleNamespace()],
        ids=repr,
    )
    def test_other_sources_are_refused_at_once(self, source: Any) -> None:
        """A source of no known kind is an error at once, which does not quote it."""
        with pytest.raises(
            CredentialsError, match=r"\Acredentials: expected .* got \w+\Z"
        ) as caught:
            CredentialCache(source)
        assert "canary" not in printed(caught.value)

    @pytest.mark.parametrize("result", [None, ID, (ID, KEY), {"secret_id": ID}], ids=repr)
    async def test_a_provider_must_return_credentials(self, result: Any) -> None:
        """Anything else that a provider returns is named by its type, not quoted."""

        async def provider() -> Any:
            return result

        sources: list[Any] = [provider, lambda: result, deferred(provider)]
        for source in sources:
            with pytest.raises(CredentialsError, match=r"gave \w+, not Credentials") as caught:
                await CredentialCache(source).get()
            assert "canary" not in printed(caught.value)

    @pytest.mark.parametrize(
        "source",
        [
            pytest.param(SimpleNamespace(secret_id=ID, secret_key=KEY), id="no token"),
            pytest.param(SimpleNamespace(secret_id=ID, secret_key="canary\n", token=""), id="line"),
            pytest.param(SimpleNamespace(secret_id=ID, secret_key=None, token=""), id="None"),
            pytest.param(SimpleNamespace(get_credential_info=lambda: (ID, KEY)), id="two"),
            pytest.param(SimpleNamespace(get_credential_info=lambda: None), id="none"),
            pytest.param(partial(next, iter(())), id="exhausted"),
        ],
    )
    async def test_a_broken_source_is_a_credentials_error(self, source: Any) -> None:
        """Any exception of a source becomes a CredentialsError that quotes no value."""
        with pytest.raises(CredentialsError) as caught:
            await CredentialCache(source).get()
        assert "canary" not in printed(caught.value)

    @pytest.mark.parametrize("key", ["secret_key", "token"])
    async def test_no_frame_shows_what_an_object_returned(self, key: str) -> None:
        """A refused value of a credential object is in no local variable of a traceback."""
        values = {"secret_id": ID, "secret_key": KEY, "token": TOKEN} | {key: "canary\n"}

        class AtOnce:
            def get_credential_info(self) -> tuple[str, ...]:
                return tuple(values.values())

        sources: list[Any] = [AtOnce(), type("OneByOne", (), values)()]
        for source in sources:
            with pytest.raises(CredentialsError, match=f"^{key}: ") as caught:
                await CredentialCache(source).get()
            assert "canary" not in with_locals(caught.value)

    def test_making_a_cache_reads_nothing(self) -> None:
        """Making a cache reads no property: it might block, and clients are made on the loop."""

        class Unread:
            token = None
            secret_key = KEY

            @property
            def secret_id(self) -> str:
                pytest.fail("read while the cache was made")

        CredentialCache(Unread())

    async def test_lasting_credentials_are_read_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Credentials of the environment are kept until the service refuses them."""
        monkeypatch.setenv("TENCENTCLOUD_SECRET_ID", ID)
        monkeypatch.setenv("TENCENTCLOUD_SECRET_KEY", KEY)
        cache = CredentialCache(default_chain, lasting=True)
        found = await cache.get()
        assert found == PAIR
        monkeypatch.setenv("TENCENTCLOUD_TOKEN", TOKEN)
        assert await cache.get() is found
        assert cache.invalidate(found)
        assert await cache.get() == TRIPLE

    @pytest.mark.parametrize("source", [PAIR, lambda: PAIR, plain(PAIR)])
    async def test_explicit_credentials_ignore_the_environment(
        self, source: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Explicit credentials are never combined with the environment, not even a token."""
        monkeypatch.setenv("TENCENTCLOUD_SECRET_ID", "other")
        monkeypatch.setenv("TENCENTCLOUD_SECRET_KEY", "other")
        monkeypatch.setenv("TENCENTCLOUD_TOKEN", "other")
        assert await CredentialCache(source).get() == PAIR


# Renewal


class Clock:
    """A wall clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Provider:
    """Takes a second of virtual time, then returns or raises the next of its results."""

    def __init__(self, *results: Credentials | Exception) -> None:
        self.results = list(results)
        self.calls = 0

    async def provide(self) -> Credentials:
        self.calls += 1
        await anyio.sleep(1)
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


@pytest.fixture
def clock() -> Clock:
    return Clock()


def temporary(clock: Clock, seconds: float = 1000) -> Credentials:
    """Return new credentials that expire in so many seconds."""
    return Credentials(ID, KEY, TOKEN, expires_at=clock.now + seconds)


async def test_credentials_are_renewed_five_minutes_before_they_expire(clock: Clock) -> None:
    """Credentials that last 1,000 s are used for 700 s."""
    provider = Provider(old := temporary(clock), new := temporary(clock, 2000))
    cache = CredentialCache(provider.provide, now=clock)
    assert await cache.get() is old
    clock.now += 699.9
    assert await cache.get() is old
    assert provider.calls == 1
    clock.now += 0.1
    assert await cache.get() is new
    assert provider.calls == 2


async def test_without_an_expiry_the_provider_is_called_every_time() -> None:
    """A provider of credentials without an expiry is called every time."""
    provider = Provider(PAIR, TRIPLE, PAIR)
    cache = CredentialCache(provider.provide)
    assert [await cache.get() for _ in range(3)] == [PAIR, TRIPLE, PAIR]


@pytest.mark.parametrize("result", [PAIR, Credentials(ID, KEY, TOKEN, expires_at=4e9)])
async def test_concurrent_callers_share_a_renewal(result: Credentials) -> None:
    """Fifty concurrent callers cause one call of the provider, whether its result lasts or not."""
    provider = Provider(result)
    cache = CredentialCache(provider.provide)
    found = await asyncio.gather(*(cache.get() for _ in range(50)))
    assert all(credentials is result for credentials in found)
    assert provider.calls == 1


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (CredentialsError("no role"), "no role"),
        (OSError("unreachable"), "the credentials provider failed: OSError: unreachable"),
    ],
)
async def test_concurrent_callers_share_a_failure(problem: Exception, message: str) -> None:
    """Fifty concurrent callers share one failure; each gets an error of its own with the cause."""
    provider = Provider(problem)
    cache = CredentialCache(provider.provide)
    errors = await asyncio.gather(*(cache.get() for _ in range(50)), return_exceptions=True)
    assert provider.calls == 1
    assert len(set(map(id, errors))) == 50
    for error in errors:
        assert isinstance(error, CredentialsError)
        assert str(error) == message
        assert problem in chain(error)


async def test_eager_tasks_renew_what_has_expired(clock: Clock) -> None:
    """A provider that waits for nothing is asked again before its credentials expire."""
    run_tasks_eagerly()

    async def provider() -> Credentials:
        return temporary(clock)

    cache = CredentialCache(provider, now=clock)
    assert await cache.get() == temporary(clock)
    clock.now += 1000
    assert await cache.get() == temporary(clock)


async def test_eager_tasks_fail_once() -> None:
    """After the failure of a provider that waits for nothing, it is asked again."""
    run_tasks_eagerly()
    left: list[Exception | Credentials] = [OSError("unreachable"), PAIR, TRIPLE]

    async def provider() -> Credentials:
        result = left.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    cache = CredentialCache(provider)
    with pytest.raises(CredentialsError):
        await cache.get()
    assert [await cache.get(), await cache.get()] == [PAIR, TRIPLE]


async def test_a_failure_is_not_kept() -> None:
    """After a failure the next caller calls the provider again."""
    provider = Provider(OSError("unreachable"), PAIR)
    cache = CredentialCache(provider.provide)
    with pytest.raises(CredentialsError):
        await cache.get()
    assert await cache.get() is PAIR


@pytest.mark.parametrize("steps", range(10))
@pytest.mark.parametrize("eager", [False, True])
async def test_who_comes_late_does_not_overtake(steps: int, eager: bool) -> None:
    """Callers go on in the order of their coming, in whatever step of a renewal they come."""
    if eager:
        run_tasks_eagerly()
    passed: list[int] = []

    async def provider() -> Credentials:
        return Credentials(ID, KEY, TOKEN, expires_at=4e9)

    async def pass_through(number: int) -> None:
        await cache.get()
        passed.append(number)

    cache = CredentialCache(provider)
    first = asyncio.create_task(pass_through(1))
    for _ in range(steps):
        await asyncio.sleep(0)
    await asyncio.gather(first, pass_through(2))
    assert passed == [1, 2]


@pytest.mark.parametrize("cancelled", [0, 1], ids=["first", "second"])
async def test_a_cancelled_caller_does_not_affect_others(cancelled: int) -> None:
    """If one caller is cancelled, the others get the result of the same renewal."""
    provider = Provider(PAIR, TRIPLE)
    cache = CredentialCache(provider.provide)
    tasks = [asyncio.create_task(cache.get()) for _ in range(5)]
    await anyio.sleep(0.5)
    tasks[cancelled].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results.pop(cancelled), asyncio.CancelledError)
    assert results == [PAIR] * 4
    assert provider.calls == 1


async def test_callers_that_time_out_share_a_renewal() -> None:
    """While callers time out one after the other, a slow provider is called once."""
    provider = Provider(PAIR)
    cache = CredentialCache(provider.provide)
    for _ in range(20):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await cache.get()
    assert await cache.get() is PAIR
    assert provider.calls == 1


async def test_a_provider_that_hangs_times_out() -> None:
    """A provider that hangs is a CredentialsError after 30 s."""

    async def provider() -> Credentials:
        await asyncio.sleep(3600)
        return PAIR

    with pytest.raises(CredentialsError, match="nothing within 30 s"):
        await CredentialCache(provider).get()


async def test_a_cancelled_error_of_a_provider_is_its_own() -> None:
    """A provider that waits for something cancelled has failed; nobody else was cancelled."""

    async def provider() -> Credentials:
        raise asyncio.CancelledError

    with pytest.raises(CredentialsError, match="the credentials provider raised CancelledError"):
        await CredentialCache(provider).get()


async def test_closing_cancels_a_renewal() -> None:
    """A caller that waits for a provider when the client is closed gets an error that says so."""

    async def provider() -> Credentials:
        await asyncio.sleep(10)
        return PAIR

    cache = CredentialCache(provider)
    cache.close()
    waiting = asyncio.create_task(cache.get())
    await asyncio.sleep(1)
    cache.close()
    with pytest.raises(ConfigurationError, match="closed during the call") as caught:
        await waiting
    assert type(caught.value) is ConfigurationError


async def test_valid_credentials_are_used_during_a_renewal(clock: Clock) -> None:
    """While credentials are still valid, only the caller that renews them waits."""
    provider = Provider(old := temporary(clock), new := temporary(clock, 2000))
    cache = CredentialCache(provider.provide, now=clock)
    await cache.get()
    clock.now += 800
    renewal = asyncio.create_task(cache.get())
    await anyio.sleep(0.1)
    with anyio.fail_after(0.5):
        assert await cache.get() is old
    assert await renewal is new
    assert await cache.get() is new


async def test_expired_credentials_are_not_used_during_a_renewal(clock: Clock) -> None:
    """Once credentials have expired, all callers wait for new ones."""
    provider = Provider(temporary(clock), new := temporary(clock, 3000))
    cache = CredentialCache(provider.provide, now=clock)
    await cache.get()
    clock.now += 1000
    found = await asyncio.gather(*(cache.get() for _ in range(3)))
    assert all(credentials is new for credentials in found)
    assert provider.calls == 2


async def test_a_failed_early_renewal_keeps_the_old_credentials(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """An early renewal that fails is logged, not raised, and not repeated for ten seconds."""
    provider = Provider(
        old := temporary(clock), OSError("unreachable"), new := temporary(clock, 2000)
    )
    cache = CredentialCache(provider.provide, now=clock)
    await cache.get()
    clock.now += 800
    with caplog.at_level(logging.WARNING):
        assert await cache.get() is old
    assert caplog.messages == ["credentials could not be renewed, using the old: unreachable"]
    clock.now += 9.9
    assert await cache.get() is old
    assert provider.calls == 2
    clock.now += 0.1
    assert await cache.get() is new


async def test_a_pause_ends_when_the_credentials_expire(clock: Clock) -> None:
    """Credentials that expire during the pause are renewed at once."""
    provider = Provider(temporary(clock), OSError("unreachable"), new := temporary(clock, 2000))
    cache = CredentialCache(provider.provide, now=clock)
    await cache.get()
    clock.now += 995
    await cache.get()
    clock.now += 5
    assert await cache.get() is new


async def test_a_failed_renewal_after_the_expiry_raises(clock: Clock) -> None:
    """If the credentials have expired, a failed renewal raises."""
    provider = Provider(temporary(clock), OSError("unreachable"))
    cache = CredentialCache(provider.provide, now=clock)
    await cache.get()
    clock.now += 1000
    with pytest.raises(CredentialsError, match="unreachable"):
        await cache.get()


async def test_a_failure_does_not_outlast_valid_credentials(clock: Clock) -> None:
    """After a clock was ahead for a moment, the old credentials are used again."""
    problem = OSError("unreachable")
    provider = Provider(old := temporary(clock), problem, problem)
    cache = CredentialCache(provider.provide, now=clock)
    await cache.get()
    clock.now += 1000
    with pytest.raises(CredentialsError):
        await cache.get()
    clock.now -= 100
    assert await cache.get() is old


async def test_refused_credentials_are_renewed(clock: Clock) -> None:
    """Credentials that the service refuses are renewed before they expire."""
    provider = Provider(old := temporary(clock), new := temporary(clock, 2000))
    cache = CredentialCache(provider.provide, now=clock)
    assert await cache.get() is old
    assert cache.invalidate(old)
    assert await cache.get() is new


async def test_a_late_refusal_does_not_drop_new_credentials(clock: Clock) -> None:
    """Further refusals of the old credentials cause no further renewal."""
    provider = Provider(old := temporary(clock), new := temporary(clock, 2000))
    cache = CredentialCache(provider.provide, now=clock)
    await cache.get()
    for _ in range(3):
        assert cache.invalidate(old)
        assert await cache.get() is new
    assert provider.calls == 2


async def test_a_provider_may_have_other_credentials_by_now() -> None:
    """A refusal may concern credentials that the provider has replaced since."""
    results: list[Credentials | CredentialsError] = [PAIR, TRIPLE, CredentialsError("gone")]

    async def provide() -> Credentials:
        result = results.pop(0)
        if isinstance(result, CredentialsError):
            raise result
        return result

    cache = CredentialCache(provide)
    found = [await cache.have_changed(PAIR) for _ in range(3)]
    assert found == [False, True, False]  # the same; others; it has failed
    assert not await CredentialCache(PAIR).have_changed(TRIPLE)
    assert not await CredentialCache(provide, lasting=True).have_changed(TRIPLE)


def test_a_fixed_value_has_no_other_credentials() -> None:
    """After a refusal of fixed credentials there are no others to try."""
    assert not CredentialCache(PAIR).invalidate(PAIR)


async def test_refused_credentials_are_not_handed_out_again() -> None:
    """Concurrent callers get the same credentials; once refused, later callers get others."""
    provider = Provider(PAIR, TRIPLE)
    cache = CredentialCache(provider.provide)

    async def get_and_refuse() -> Credentials:
        found = await cache.get()
        cache.invalidate(found)
        return found

    first, second = await asyncio.gather(get_and_refuse(), get_and_refuse())
    assert (first, second) == (PAIR, PAIR)
    assert await cache.get() == TRIPLE


class TestCacheMadeOutsideALoop:
    """A cache that is made before a loop runs, as clients often are."""

    @pytest.fixture
    def cache(self) -> CredentialCache:
        return CredentialCache(Provider(PAIR).provide)

    async def test_it_works_on_the_loop(self, cache: CredentialCache) -> None:
        """A cache made outside of a loop serves concurrent callers on one."""
        first, second = await asyncio.gather(cache.get(), cache.get())
        assert first is second is PAIR
