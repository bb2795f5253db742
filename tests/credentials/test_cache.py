"""Providers of credentials: which there are, when they are asked again, whom that disturbs."""

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
from keys import ID, KEY, PAIR, TOKEN, TRIPLE, chain, plain, said

from ci_live_audit.credentials.cache import CredentialCache
from ci_live_audit.credentials.chain import default_chain
from ci_live_audit.credentials.values import Credentials
from ci_live_audit.errors import CredentialsError


class Properties:
    """What Tencent's SDKs call a credential object."""

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
    """One that gives all at once; its attributes, read one by one, would be torn."""

    secret_id = secret_key = token = "torn"

    def get_credential_info(self) -> tuple[str, str, str | None]:
        return ID, KEY, TOKEN


class Callee:
    """A callable object."""

    def __call__(self) -> Credentials:
        return TRIPLE


class AsyncCallee:
    """An asynchronous callable object."""

    async def __call__(self) -> Credentials:
        return TRIPLE

    async def method(self) -> Credentials:
        return TRIPLE


def provide(credentials: Credentials = TRIPLE) -> Credentials:
    return credentials


async def provide_async(credentials: Credentials = TRIPLE) -> Credentials:
    return credentials


def later(give: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
    """A plain function that gives an awaitable, which is not known before it is called."""
    return lambda: give()  # noqa: PLW0108 - not to be seen as the async function that it calls


@pytest.mark.waits
class TestSources:
    """Every kind of source. What is not async runs in a worker thread, for which real time goes."""

    @pytest.mark.parametrize(
        "source",
        [
            pytest.param(TRIPLE, id="value"),
            pytest.param(provide, id="function"),
            pytest.param(provide_async, id="async function"),
            pytest.param(partial(provide, TRIPLE), id="partial"),
            pytest.param(partial(provide_async, TRIPLE), id="async partial"),
            pytest.param(Callee(), id="callable object"),
            pytest.param(AsyncCallee(), id="async callable object"),
            pytest.param(AsyncCallee().method, id="async method"),
            pytest.param(later(provide_async), id="function giving an awaitable"),
            pytest.param(plain(TRIPLE), id="attributes"),
            pytest.param(Properties(), id="properties"),
            pytest.param(Info(), id="get_credential_info"),
        ],
    )
    async def test_each_kind_of_source(self, source: Any) -> None:
        """Whatever the kind, the same credentials come of it."""
        assert await CredentialCache(source).get() == TRIPLE

    @pytest.mark.parametrize("token", [None, ""])
    async def test_an_empty_token_of_an_object_is_none(self, token: str | None) -> None:
        """The vendor's objects say "" for no token, by attribute or by method."""
        source = SimpleNamespace(secret_id=ID, secret_key=KEY, token=token)
        assert await CredentialCache(source).get() == PAIR
        info: Any = SimpleNamespace(get_credential_info=lambda: (ID, KEY, token))
        assert await CredentialCache(info).get() == PAIR

    async def test_an_object_is_read_for_each_request(self) -> None:
        """A rotated key is used by the next request."""
        source = SimpleNamespace(secret_id="a", secret_key="b", token="c")
        cache = CredentialCache(source)
        assert await cache.get() == Credentials("a", "b", "c")
        source.secret_id, source.secret_key, source.token = "d", "e", None
        assert await cache.get() == Credentials("d", "e")

    async def test_what_may_block_runs_in_a_thread(self) -> None:
        """Functions, properties and methods may do blocking work without stopping the loop."""
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

            def give(self) -> tuple[str, str, None]:
                return self.secret_id, self.secret_key, None

        info: Any = SimpleNamespace(get_credential_info=Blocking().give)
        sources: list[Any] = [Blocking(), Blocking().get, info]
        for source in sources:
            assert await CredentialCache(source).get() == PAIR
        assert threads
        assert threading.get_ident() not in threads

    async def test_what_is_async_runs_in_the_loop(self) -> None:
        """An async provider can use what belongs to the caller's loop."""
        seen = []

        async def ask() -> Credentials:
            seen.append(asyncio.get_running_loop())
            return PAIR

        await CredentialCache(ask).get()
        await CredentialCache(later(ask)).get()
        assert seen == [asyncio.get_running_loop()] * 2

    @pytest.mark.parametrize(
        "source",
        [None, 5, "canary", b"canary", {"secret_id": ID}, (ID, KEY), SimpleNamespace()],
        ids=repr,
    )
    def test_other_sources_are_refused_at_once(self, source: Any) -> None:
        """What is none of these kinds is an error when the client is made, and is not quoted."""
        with pytest.raises(
            CredentialsError, match=r"\Acredentials: expected .* got \w+\Z"
        ) as caught:
            CredentialCache(source)
        assert "canary" not in said(caught.value)

    @pytest.mark.parametrize("answer", [None, ID, (ID, KEY), {"secret_id": ID}], ids=repr)
    async def test_a_provider_gives_credentials(self, answer: Any) -> None:
        """What it gives in their place is named by its type, not quoted."""

        async def ask() -> Any:
            return answer

        sources: list[Any] = [ask, lambda: answer, later(ask)]
        for source in sources:
            with pytest.raises(CredentialsError, match=r"gave \w+, not Credentials") as caught:
                await CredentialCache(source).get()
            assert "canary" not in said(caught.value)

    @pytest.mark.parametrize(
        "source",
        [
            pytest.param(SimpleNamespace(secret_id=ID, secret_key=KEY), id="no token"),
            pytest.param(SimpleNamespace(secret_id=ID, secret_key="canary\n", token=""), id="line"),
            pytest.param(SimpleNamespace(secret_id=ID, secret_key=None, token=""), id="None"),
            pytest.param(SimpleNamespace(get_credential_info=lambda: (ID, KEY)), id="two"),
            pytest.param(SimpleNamespace(get_credential_info=lambda: None), id="nothing"),
            pytest.param(partial(next, iter(())), id="exhausted"),
        ],
    )
    async def test_a_broken_source_is_a_credentials_error(self, source: Any) -> None:
        """Whatever goes wrong while it is asked is one kind of error, without the values."""
        with pytest.raises(CredentialsError) as caught:
            await CredentialCache(source).get()
        assert "canary" not in said(caught.value)

    def test_making_a_cache_asks_nothing(self) -> None:
        """A property may be a blocking HTTP call, and a client is made in the event loop."""

        class Asked:
            token = None
            secret_key = KEY

            @property
            def secret_id(self) -> str:
                pytest.fail("asked while the cache was made")

        CredentialCache(Asked())

    async def test_what_lasts_is_asked_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the environment gives is kept until the service refuses it."""
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
    async def test_given_credentials_are_total(
        self, source: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing of the environment is added to them, not even a token that they lack."""
        monkeypatch.setenv("TENCENTCLOUD_SECRET_ID", "other")
        monkeypatch.setenv("TENCENTCLOUD_SECRET_KEY", "other")
        monkeypatch.setenv("TENCENTCLOUD_TOKEN", "other")
        assert await CredentialCache(source).get() == PAIR


# When they are renewed


class Clock:
    """A wall clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Provider:
    """Takes a second of virtual time, then gives or raises the next of its answers."""

    def __init__(self, *answers: Credentials | Exception) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def ask(self) -> Credentials:
        self.asked += 1
        await anyio.sleep(1)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def clock() -> Clock:
    return Clock()


def temporary(clock: Clock, seconds: float = 1000) -> Credentials:
    """New credentials that end so many seconds from now."""
    return Credentials(ID, KEY, TOKEN, expires_at=clock.now + seconds)


async def test_renewed_five_minutes_before_they_end(clock: Clock) -> None:
    """Credentials of 1000 s are used for 700."""
    provider = Provider(old := temporary(clock), new := temporary(clock, 2000))
    cache = CredentialCache(provider.ask, now=clock)
    assert await cache.get() is old
    clock.now += 699.9
    assert await cache.get() is old
    assert provider.asked == 1
    clock.now += 0.1
    assert await cache.get() is new
    assert provider.asked == 2


async def test_without_an_end_the_provider_is_asked_each_time() -> None:
    """Who does not say how long they last is asked for every request."""
    provider = Provider(PAIR, TRIPLE, PAIR)
    cache = CredentialCache(provider.ask)
    assert [await cache.get() for _ in range(3)] == [PAIR, TRIPLE, PAIR]


@pytest.mark.parametrize("answer", [PAIR, Credentials(ID, KEY, TOKEN, expires_at=4e9)])
async def test_callers_at_once_ask_once(answer: Credentials) -> None:
    """Fifty callers share one answer, whether it can be kept or not."""
    provider = Provider(answer)
    cache = CredentialCache(provider.ask)
    found = await asyncio.gather(*(cache.get() for _ in range(50)))
    assert all(credentials is answer for credentials in found)
    assert provider.asked == 1


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (CredentialsError("no role"), "no role"),
        (OSError("unreachable"), "the credentials provider failed: OSError: unreachable"),
    ],
)
async def test_callers_at_once_fail_once(problem: Exception, message: str) -> None:
    """Fifty callers share one failure, each with an error of its own that leads to the cause."""
    provider = Provider(problem)
    cache = CredentialCache(provider.ask)
    errors = await asyncio.gather(*(cache.get() for _ in range(50)), return_exceptions=True)
    assert provider.asked == 1
    assert len(set(map(id, errors))) == 50
    for error in errors:
        assert isinstance(error, CredentialsError)
        assert str(error) == message
        assert problem in chain(error)


async def test_after_a_failure_the_next_caller_asks_again() -> None:
    """A failure is not kept."""
    provider = Provider(OSError("unreachable"), PAIR)
    cache = CredentialCache(provider.ask)
    with pytest.raises(CredentialsError):
        await cache.get()
    assert await cache.get() is PAIR


@pytest.mark.parametrize("cancelled", [0, 1], ids=["who asks", "who waits"])
async def test_a_cancelled_caller_harms_no_other(cancelled: int) -> None:
    """Whoever is cancelled, the provider is asked once and all others go on."""
    provider = Provider(PAIR, TRIPLE)
    cache = CredentialCache(provider.ask)
    tasks = [asyncio.create_task(cache.get()) for _ in range(5)]
    await anyio.sleep(0.5)
    tasks[cancelled].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results.pop(cancelled), asyncio.CancelledError)
    assert results == [PAIR] * 4
    assert provider.asked == 1


async def test_callers_who_give_up_do_not_ask_again() -> None:
    """While a provider hangs, impatient callers come and go, and it is asked once."""
    provider = Provider(PAIR)
    cache = CredentialCache(provider.ask)
    for _ in range(20):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await cache.get()
    assert await cache.get() is PAIR
    assert provider.asked == 1


async def test_a_provider_that_hangs_has_failed() -> None:
    """Nobody waits for a provider for ever."""

    async def provider() -> Credentials:
        await asyncio.sleep(3600)
        return PAIR

    with pytest.raises(CredentialsError, match="nothing within 30 s"):
        await CredentialCache(provider).get()


async def test_closing_ends_the_asking() -> None:
    """Who waits for a provider when the client is closed is told so."""

    async def provider() -> Credentials:
        await asyncio.sleep(10)
        return PAIR

    cache = CredentialCache(provider)
    cache.close()
    waiting = asyncio.create_task(cache.get())
    await asyncio.sleep(1)
    cache.close()
    with pytest.raises(CredentialsError, match="closed"):
        await waiting


async def test_the_old_serve_while_they_are_renewed(clock: Clock) -> None:
    """Only one caller waits for the renewal; with credentials still valid the others do not."""
    provider = Provider(old := temporary(clock), new := temporary(clock, 2000))
    cache = CredentialCache(provider.ask, now=clock)
    await cache.get()
    clock.now += 800
    renewal = asyncio.create_task(cache.get())
    await anyio.sleep(0.1)
    with anyio.fail_after(0.5):
        assert await cache.get() is old
    assert await renewal is new
    assert await cache.get() is new


async def test_the_ended_do_not_serve_while_they_are_renewed(clock: Clock) -> None:
    """After the end everybody waits for the new."""
    provider = Provider(temporary(clock), new := temporary(clock, 3000))
    cache = CredentialCache(provider.ask, now=clock)
    await cache.get()
    clock.now += 1000
    found = await asyncio.gather(*(cache.get() for _ in range(3)))
    assert all(credentials is new for credentials in found)
    assert provider.asked == 2


async def test_a_failed_early_renewal_keeps_the_old_and_pauses(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The failure is logged, not raised, and the provider is left alone for ten seconds."""
    provider = Provider(
        old := temporary(clock), OSError("unreachable"), new := temporary(clock, 2000)
    )
    cache = CredentialCache(provider.ask, now=clock)
    await cache.get()
    clock.now += 800
    with caplog.at_level(logging.WARNING):
        assert await cache.get() is old
    assert caplog.messages == ["credentials could not be renewed, using the old: unreachable"]
    clock.now += 9.9
    assert await cache.get() is old
    assert provider.asked == 2
    clock.now += 0.1
    assert await cache.get() is new


async def test_a_pause_ends_with_the_credentials(clock: Clock) -> None:
    """Credentials that end within the pause are not used longer for it."""
    provider = Provider(temporary(clock), OSError("unreachable"), new := temporary(clock, 2000))
    cache = CredentialCache(provider.ask, now=clock)
    await cache.get()
    clock.now += 995
    await cache.get()
    clock.now += 5
    assert await cache.get() is new


async def test_a_failed_renewal_after_the_end_raises(clock: Clock) -> None:
    """Ended credentials are not better than none."""
    provider = Provider(temporary(clock), OSError("unreachable"))
    cache = CredentialCache(provider.ask, now=clock)
    await cache.get()
    clock.now += 1000
    with pytest.raises(CredentialsError, match="unreachable"):
        await cache.get()


async def test_an_earlier_failure_is_forgotten_when_the_old_serve(clock: Clock) -> None:
    """A clock that was ahead for a moment leaves no failure behind."""
    problem = OSError("unreachable")
    provider = Provider(old := temporary(clock), problem, problem)
    cache = CredentialCache(provider.ask, now=clock)
    await cache.get()
    clock.now += 1000
    with pytest.raises(CredentialsError):
        await cache.get()
    clock.now -= 100
    assert await cache.get() is old


async def test_refused_credentials_are_asked_for_anew(clock: Clock) -> None:
    """What the service does not accept is forgotten before its time."""
    provider = Provider(old := temporary(clock), new := temporary(clock, 2000))
    cache = CredentialCache(provider.ask, now=clock)
    assert await cache.get() is old
    assert cache.invalidate(old)
    assert await cache.get() is new


async def test_a_late_refusal_does_not_forget_the_new(clock: Clock) -> None:
    """Of many requests with the old credentials, the last refusal costs no further renewal."""
    provider = Provider(old := temporary(clock), new := temporary(clock, 2000))
    cache = CredentialCache(provider.ask, now=clock)
    await cache.get()
    for _ in range(3):
        assert cache.invalidate(old)
        assert await cache.get() is new
    assert provider.asked == 2


async def test_a_provider_that_has_others_by_now() -> None:
    """Of one that is asked every time, a refusal may be of what it gave before."""
    answers: list[Credentials | CredentialsError] = [PAIR, TRIPLE, CredentialsError("gone")]

    async def provide() -> Credentials:
        answer = answers.pop(0)
        if isinstance(answer, CredentialsError):
            raise answer
        return answer

    cache = CredentialCache(provide)
    found = [await cache.have_changed(PAIR) for _ in range(3)]
    assert found == [False, True, False]  # the same; others; it has failed
    assert not await CredentialCache(PAIR).have_changed(TRIPLE)
    assert not await CredentialCache(provide, lasting=True).have_changed(TRIPLE)


def test_given_credentials_stay_when_refused() -> None:
    """A value has no other to offer, so another attempt is no use."""
    assert not CredentialCache(PAIR).invalidate(PAIR)


async def test_a_refusal_while_others_wait() -> None:
    """Credentials refused by one caller still serve those who got them too, but nobody else."""
    provider = Provider(PAIR, TRIPLE)
    cache = CredentialCache(provider.ask)

    async def ask_and_refuse() -> Credentials:
        found = await cache.get()
        cache.invalidate(found)
        return found

    first, second = await asyncio.gather(ask_and_refuse(), ask_and_refuse())
    assert (first, second) == (PAIR, PAIR)
    assert await cache.get() == TRIPLE


class TestCacheMadeOutside:
    """A client is often made before its loop runs."""

    @pytest.fixture
    def cache(self) -> CredentialCache:
        return CredentialCache(Provider(PAIR).ask)

    async def test_it_serves_the_loop(self, cache: CredentialCache) -> None:
        """The cache needs no loop to be made, and serves many callers of the loop it gets."""
        first, second = await asyncio.gather(cache.get(), cache.get())
        assert first is second is PAIR
