"""Credentials: which are accepted, who provides them, when they are renewed, what is shown."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import socket
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import attrs
import pytest

from ci_live_audit import default_chain as module
from ci_live_audit.credentials import CredentialCache, Credentials, Secret
from ci_live_audit.default_chain import cvm_role, default_chain
from ci_live_audit.errors import CredentialsError

ID, KEY, TOKEN = "AKIDcanary", "canary-key", "canary-token"
PAIR = Credentials(ID, KEY)
TRIPLE = Credentials(ID, KEY, TOKEN)


def plain(credentials: Credentials) -> SimpleNamespace:
    """A credential object as other libraries have it."""
    return SimpleNamespace(
        secret_id=credentials.secret_id,
        secret_key=credentials.secret_key,
        token=credentials.token,
    )


def chain(error: BaseException | None) -> list[BaseException]:
    """The error and all that it carries along, shown in a traceback or not."""
    errors: list[BaseException] = []
    while error is not None and error not in errors:
        errors.append(error)
        error = error.__cause__ or error.__context__
    return errors


def said(error: BaseException) -> str:
    """All that a program might write about an error, but for the values of local variables."""
    texts = [f"{problem}\n{problem!r}" for problem in chain(error)]
    return "\n".join([*texts, *traceback.format_exception(error)])


def captured(error: BaseException) -> str:
    """What an error tracker collects: the local variables of all frames but the test's own."""
    assert error.__traceback__ is not None
    frames = error.__traceback__.tb_next
    return "".join(
        traceback.TracebackException(type(error), error, frames, capture_locals=True).format()
    )


# One key pair


@pytest.mark.parametrize("token", [None, TOKEN])
def test_credentials_hold_what_they_were_given(token: str | None) -> None:
    """Id, key and token are plain texts to whoever signs with them."""
    credentials = Credentials(ID, KEY, token, expires_at=5.0)
    assert (credentials.secret_id, credentials.secret_key) == (ID, KEY)
    assert (credentials.token, credentials.expires_at) == (token, 5.0)


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "canary key", " canary", "canary ", "canary\n", "canary\r\nX: y", "canary\0"),
        *("canary\t", "canary\x7f", "canary\u00e9", "canary\u0661", "canary\u200b", "\ud800canary"),
        *(b"canary", 5, True, ["canary"], {"canary": 1}, Path("canary")),
    ],
    ids=ascii,
)
@pytest.mark.parametrize("name", ["secret_id", "secret_key", "token"])
def test_what_no_header_can_carry_is_refused_unseen(name: str, value: Any) -> None:
    """The message names the argument and its fault, and never quotes the value."""
    arguments: dict[str, Any] = {"secret_id": ID, "secret_key": KEY, name: value}
    with pytest.raises(CredentialsError, match=rf"\A{name}: expected ") as caught:
        Credentials(**arguments)
    assert "canary" not in said(caught.value)


@pytest.mark.parametrize("name", ["secret_id", "secret_key"])
def test_id_and_key_are_needed(name: str) -> None:
    """None stands for no token, and for nothing else."""
    arguments: dict[str, Any] = {"secret_id": ID, "secret_key": KEY, name: None}
    with pytest.raises(CredentialsError, match=rf"\A{name}: expected a text, got NoneType\Z"):
        Credentials(**arguments)


@pytest.mark.parametrize("value", ["1700000000", "soon", [5], b"5"], ids=repr)
def test_an_end_is_a_number(value: Any) -> None:
    """A text from some JSON is refused here, not by a TypeError at the second request."""
    with pytest.raises(CredentialsError, match=r"\Aexpires_at: "):
        Credentials(ID, KEY, TOKEN, expires_at=value)


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        "{}".format,
        "{!r}".format,
        lambda credentials: repr(attrs.asdict(credentials)),
        lambda credentials: repr(attrs.astuple(credentials)),
        lambda credentials: repr(attrs.evolve(credentials, expires_at=5.0)),
        lambda credentials: repr([credentials.secret_id, credentials.secret_key]),
        lambda credentials: repr({"token": credentials.token}),
    ],
)
def test_credentials_do_not_show_themselves(show: Callable[[Credentials], str]) -> None:
    """Neither as a whole nor taken apart."""
    assert "canary" not in show(TRIPLE)
    assert "'***'" in show(TRIPLE)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_credentials_are_not_pickled(protocol: int) -> None:
    """They do not leave the process by accident, and the message says what to do instead."""
    with pytest.raises(TypeError, match="pass what provides them"):
        pickle.dumps(TRIPLE, protocol)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_credentials_can_be_copied(duplicate: Callable[[Credentials], Credentials]) -> None:
    """A copied configuration keeps its credentials: nothing leaves the process."""
    assert duplicate(TRIPLE) == TRIPLE


def test_credentials_are_values() -> None:
    """They are compared by what they hold, and do not change."""
    assert Credentials(ID, KEY, TOKEN) == TRIPLE != PAIR
    assert {Credentials(ID, KEY, TOKEN)} == {TRIPLE}
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        TRIPLE.token = None  # type: ignore[misc]


def test_a_secret_is_its_text_except_to_repr() -> None:
    """It equals, hashes and is sent as its text."""
    secret = Secret(KEY)
    assert secret == KEY
    assert hash(secret) == hash(KEY)
    assert (str(secret), secret.encode()) == (KEY, KEY.encode())
    assert repr(secret) == "'***'"


# Whoever provides them


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
        assert cache.refused(found)
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


def test_a_part_of_a_secret_is_a_secret() -> None:
    """Tools that show the beginning of a long text show nothing of a secret."""
    assert repr(Secret("canary" * 20)[:80]) == "'***'"


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
    assert cache.refused(old)
    assert await cache.get() is new


async def test_a_late_refusal_does_not_forget_the_new(clock: Clock) -> None:
    """Of many requests with the old credentials, the last refusal costs no further renewal."""
    provider = Provider(old := temporary(clock), new := temporary(clock, 2000))
    cache = CredentialCache(provider.ask, now=clock)
    await cache.get()
    for _ in range(3):
        assert cache.refused(old)
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
    assert not CredentialCache(PAIR).refused(PAIR)


async def test_a_refusal_while_others_wait() -> None:
    """Credentials refused by one caller still serve those who got them too, but nobody else."""
    provider = Provider(PAIR, TRIPLE)
    cache = CredentialCache(provider.ask)

    async def ask_and_refuse() -> Credentials:
        found = await cache.get()
        cache.refused(found)
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


# Where they are looked for


class Metadata(ThreadingHTTPServer):
    """A CVM instance's metadata service, on a real socket."""

    ROLES = "/latest/meta-data/cam/security-credentials/"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.asked: list[str] = []

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def role(self, name: str = "auditor", **changes: Any) -> None:
        """Bind a role, with the documented answer but for the changes; None leaves a field out."""
        answer = {
            "TmpSecretId": ID,
            "TmpSecretKey": KEY,
            "Token": TOKEN,
            "ExpiredTime": 1_700_000_000,
            "Expiration": "2023-11-14T22:13:20Z",
            "Code": "Success",
        } | changes
        self.says(name + "\n", at="")
        self.says(json.dumps({key: answer[key] for key in answer if answer[key] is not None}), name)

    def says(self, body: str | bytes, at: str = "auditor", status: int = 200) -> None:
        """Answer a path with a body."""
        self.answers[self.ROLES + at] = status, body if isinstance(body, bytes) else body.encode()


class _Answer(BaseHTTPRequestHandler):
    server: Metadata

    def do_GET(self) -> None:
        self.server.asked.append(self.path.removeprefix(Metadata.ROLES))
        status, body = self.server.answers.get(self.path, (404, b"404 - Not Found"))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def instance() -> Iterator[Metadata]:
    with Metadata() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def metadata(instance: Metadata) -> Metadata:
    """The metadata service of an instance without a role."""
    instance.answers.clear()
    instance.asked.clear()
    return instance


@pytest.fixture
def nowhere() -> Iterator[str]:
    """A host and port that nobody listens on."""
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture(autouse=True)
def etc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """In place of /etc/tencentcloud/credentials."""
    path = tmp_path / "etc" / "credentials"
    assert module.PROFILES[1] == Path("/etc/tencentcloud/credentials")
    monkeypatch.setattr(module, "PROFILES", (module.PROFILES[0], path))
    return path


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    return tmp_path / ".tencentcloud" / "credentials"


@pytest.fixture
def tccli(tmp_path: Path) -> Path:
    return tmp_path / ".tccli" / "default.credential"


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


TENCENT = "TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY"
SPELLINGS: list[tuple[tuple[str, str], list[str]]] = [
    (
        TENCENT,
        ["TENCENTCLOUD_TOKEN", "TENCENTCLOUD_SESSION_TOKEN", "TENCENTCLOUD_SECURITY_TOKEN"],
    ),
    (("TENCENTCLOUD_SECRETID", "TENCENTCLOUD_SECRETKEY"), ["TENCENTCLOUD_SESSIONTOKEN"]),
    (("COS_SECRET_ID", "COS_SECRET_KEY"), ["COS_TOKEN"]),
    (("COS_SECRETID", "COS_SECRETKEY"), ["COS_TOKEN"]),
    (("COS_KEY", "COS_SECRET"), ["COS_TOKEN"]),
    (("SECRETID", "SECRETKEY"), []),
]
PAIRS = [pair for pair, _ in SPELLINGS]


@pytest.mark.parametrize("names", PAIRS, ids="/".join)
def test_environment_without_token(names: tuple[str, str], nowhere: str) -> None:
    """Each spelling of id and key is understood; an empty token is none."""
    environ = dict(zip(names, (ID, KEY), strict=True))
    assert default_chain(environ, metadata=nowhere) == PAIR
    tokens = {name: "" for _, names in SPELLINGS for name in names}
    assert default_chain(environ | tokens, metadata=nowhere) == PAIR


@pytest.mark.parametrize(
    ("names", "token"), [(pair, token) for pair, tokens in SPELLINGS for token in tokens]
)
def test_environment_with_token(names: tuple[str, str], token: str, nowhere: str) -> None:
    """Each spelling of the token is understood beside its own id and key."""
    environ = {**dict(zip(names, (ID, KEY), strict=True)), token: TOKEN}
    assert default_chain(environ, metadata=nowhere) == TRIPLE


def test_a_token_of_another_spelling_is_not_taken(nowhere: str) -> None:
    """One tool's token does not go with another tool's key."""
    environ = {"COS_SECRET_ID": ID, "COS_SECRET_KEY": KEY, "TENCENTCLOUD_TOKEN": TOKEN}
    assert default_chain(environ, metadata=nowhere) == PAIR


def test_an_unusable_value_says_where_it_stands(nowhere: str) -> None:
    """A line break in a variable is told with the variable's name and without its value."""
    environ = {"SECRETID": "AKID", "SECRETKEY": "canary\n"}
    with pytest.raises(CredentialsError, match=r"^SECRETID, SECRETKEY: secret_key: ") as caught:
        default_chain(environ, metadata=nowhere)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("unset", [True, False], ids=["unset", "empty"])
@pytest.mark.parametrize("missing", [0, 1], ids=["id", "key"])
@pytest.mark.parametrize("names", PAIRS, ids="/".join)
def test_half_a_pair_is_an_error(
    names: tuple[str, str], missing: int, unset: bool, nowhere: str
) -> None:
    """The message names the missing variable; no other place is taken in its stead."""
    environ = {"SECRETID": ID, "SECRETKEY": KEY, names[1 - missing]: KEY, names[missing]: ""}
    if unset:
        del environ[names[missing]]
    with pytest.raises(CredentialsError, match=rf"\A{names[missing]} is missing .*") as caught:
        default_chain(environ, metadata=nowhere)
    assert names[1 - missing] in str(caught.value)
    assert "canary" not in said(caught.value)


@pytest.mark.parametrize("first", range(len(PAIRS)))
def test_order_of_spellings(first: int, nowhere: str) -> None:
    """Of several complete pairs the one of Tencent Cloud's own tools comes first."""
    environ = {
        name: f"{name}-{part}"
        for pair in reversed(PAIRS[first:])
        for name, part in zip(pair, ("id", "key"), strict=True)
    }
    secret_id, secret_key = PAIRS[first]
    assert default_chain(environ, metadata=nowhere) == Credentials(
        f"{secret_id}-id", f"{secret_key}-key"
    )


@pytest.mark.parametrize("first", range(5))
def test_order_of_places(
    first: int, profile: Path, etc: Path, tccli: Path, metadata: Metadata
) -> None:
    """Environment, profile of the user, of the machine, of tccli, role of the instance."""
    environ: dict[str, str] = {}
    ini = "[default]\nsecret_id = {}\nsecret_key = key\n"
    places: list[Callable[[], None]] = [
        lambda: environ.update(zip(TENCENT, ("0", "key"), strict=True)),
        lambda: write(profile, ini.format(1)),
        lambda: write(etc, ini.format(2)),
        lambda: write(tccli, json.dumps({"secretId": "3", "secretKey": "key"})),
        lambda: metadata.role(TmpSecretId="4"),
    ]
    for fill in places[first:]:
        fill()
    assert default_chain(environ, metadata=metadata.host).secret_id == str(first)
    assert metadata.asked == ([] if first < 4 else ["", "auditor"])


def test_home_is_the_environments(tmp_path: Path, nowhere: str) -> None:
    """An environment that is given brings its own home."""
    write(tmp_path / "other/.tencentcloud/credentials", f"[default]\nsecret_id={ID}\nsecret_key=k")
    found = default_chain({"HOME": str(tmp_path / "other")}, metadata=nowhere)
    assert found == Credentials(ID, "k")


def test_nothing_found_names_all_places(tccli: Path, nowhere: str) -> None:
    """One message tells all there is to try."""
    with pytest.raises(CredentialsError) as caught:
        default_chain({}, metadata=nowhere)
    for place in [
        *("TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY", "~/.tencentcloud/credentials"),
        *("/etc/tencentcloud/credentials", str(tccli), "no CVM role here", "credentials="),
    ]:
        assert place in str(caught.value)
    assert "\n" not in str(caught.value)


# ~/.tencentcloud/credentials


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"[default]\nsecret_id = {ID}\nsecret_key = {KEY}\n", PAIR),
        (f"[default]\nsecret_id={ID}\nsecret_key={KEY}\ntoken={TOKEN}", TRIPLE),
        (f"[default]\r\nsecret_id={ID}\r\nsecret_key={KEY}\r\ntoken=\r\n", PAIR),
        (f"# a\n[other]\nsecret_id = x\n[default]\nsecret_key: {KEY}\nsecret_id: {ID}", PAIR),
        ("[default]\nsecret_id = a%b\nsecret_key = %(c)s;#", Credentials("a%b", "%(c)s;#")),
    ],
    ids=["pair", "token", "windows", "sections", "signs"],
)
@pytest.mark.parametrize("where", ["profile", "etc"])
def test_profile(
    where: str, text: str, expected: Credentials, nowhere: str, request: pytest.FixtureRequest
) -> None:
    """The user's profile and the machine's are read alike."""
    write(request.getfixturevalue(where), text)
    assert default_chain({}, metadata=nowhere) == expected


BAD_PROFILES = [
    pytest.param(f"[default]\nsecret_id = {ID}", "secret_key is missing", id="no key"),
    pytest.param(f"[default]\nsecret_key = {KEY}", "secret_id is missing", id="no id"),
    pytest.param(f"[other]\nsecret_key = {KEY}", "default is missing", id="no section"),
    pytest.param("", "default is missing", id="empty"),
    pytest.param(f"secret_key = {KEY}", "not an INI file", id="no sections"),
    pytest.param(f"[default]\n{KEY}\n", "not an INI file", id="no sign"),
    pytest.param(f"[default\nsecret_key = {KEY}", "not an INI file", id="open bracket"),
    pytest.param(f"[default]\nsecret_id={ID}\nsecret_id={ID}", "not an INI file", id="twice"),
    pytest.param(f"secret_key = {KEY}".encode() + b"\xff", "cannot be read", id="not UTF-8"),
]


@pytest.mark.parametrize(("text", "fault"), BAD_PROFILES)
def test_a_bad_profile_is_an_error(text: str | bytes, fault: str, profile: Path) -> None:
    """The message names the file and its fault, and quotes no line: it may be the key."""
    write(profile, text)
    with pytest.raises(CredentialsError, match=fault) as caught:
        default_chain({})
    assert str(profile) in str(caught.value)
    assert "canary" not in said(caught.value)


def test_a_profile_that_is_no_file_is_an_error(profile: Path) -> None:
    """What is there and cannot be opened is not passed over."""
    profile.mkdir(parents=True)
    with pytest.raises(CredentialsError, match="cannot be read") as caught:
        default_chain({})
    assert str(profile) in str(caught.value)


def test_a_file_in_place_of_the_folder_is_no_profile(profile: Path, nowhere: str) -> None:
    """Another program's `~/.tencentcloud` file has nothing to do with us."""
    write(profile.parent, "something else")
    with pytest.raises(CredentialsError, match="no credentials found"):
        default_chain({}, metadata=nowhere)


# tccli


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"secretId": ID, "secretKey": KEY}, PAIR),
        ({"secretId": ID, "secretKey": KEY, "token": TOKEN}, TRIPLE),
        ({"secretId": ID, "secretKey": KEY, "token": None, "other": [1]}, PAIR),
        ({"secretId": ID, "secretKey": KEY, "token": "", "type": "static"}, PAIR),
    ],
)
def test_tccli_profile(
    content: Mapping[str, Any], expected: Credentials, tccli: Path, nowhere: str
) -> None:
    """What `tccli configure` wrote is used."""
    write(tccli, json.dumps(content))
    assert default_chain({}, metadata=nowhere) == expected
    assert default_chain({"TCCLI_PROFILE": ""}, metadata=nowhere) == expected


def test_tccli_profile_of_another_name(tccli: Path, nowhere: str) -> None:
    """`TCCLI_PROFILE` chooses the profile."""
    write(tccli, json.dumps({"secretId": "default", "secretKey": "default"}))
    write(tccli.with_stem("work"), json.dumps({"secretId": ID, "secretKey": KEY}))
    assert default_chain({"TCCLI_PROFILE": "work"}, metadata=nowhere) == PAIR


def test_tccli_profile_of_a_role(tccli: Path, metadata: Metadata) -> None:
    """A profile of type `cvm-role` sends to the instance."""
    write(tccli, json.dumps({"type": "cvm-role"}))
    metadata.role()
    assert default_chain({}, metadata=metadata.host).token == TOKEN


def test_tccli_profile_of_a_role_that_is_not_there(tccli: Path, nowhere: str) -> None:
    """The message is about the role, for it was asked for by name."""
    write(tccli, json.dumps({"type": "cvm-role"}))
    with pytest.raises(CredentialsError, match=r"\Athere is no CVM role here"):
        default_chain({}, metadata=nowhere)


BAD_TCCLI = [
    pytest.param(json.dumps({"secretId": ID}), "secretKey is missing", id="no key"),
    pytest.param(json.dumps({"secretKey": KEY}), "secretId is missing", id="no id"),
    pytest.param("{}", "secretId is missing", id="nothing"),
    pytest.param("", "not a JSON object", id="empty"),
    pytest.param(f'{{"secretKey": "{KEY}', "not a JSON object", id="truncated"),
    pytest.param(f"secretKey = {KEY}", "not a JSON object", id="INI"),
    pytest.param(f'["{KEY}"]', "not a JSON object", id="list"),
    pytest.param(f'"{KEY}"', "not a JSON object", id="text"),
    pytest.param("null", "not a JSON object", id="null"),
    pytest.param(KEY.encode() + b"\xff", "cannot be read", id="not UTF-8"),
]


@pytest.mark.parametrize(("text", "fault"), BAD_TCCLI)
def test_a_bad_tccli_profile_is_an_error(text: str | bytes, fault: str, tccli: Path) -> None:
    """The message names the file and its fault, and quotes nothing of it."""
    write(tccli, text)
    with pytest.raises(CredentialsError, match=fault) as caught:
        default_chain({})
    assert str(tccli) in str(caught.value)
    assert "canary" not in said(caught.value)


# The role of a CVM instance


def test_cvm_role(metadata: Metadata) -> None:
    """The instance is asked for its role's name, then for its credentials, which end."""
    metadata.role("auditor")
    assert cvm_role(metadata=metadata.host) == attrs.evolve(TRIPLE, expires_at=1_700_000_000.0)
    assert metadata.asked == ["", "auditor"]


def test_cvm_role_by_name(metadata: Metadata) -> None:
    """A role that is named is not asked for."""
    metadata.role("auditor")
    assert cvm_role("auditor", metadata=metadata.host).secret_id == ID
    assert metadata.asked == ["auditor"]


def test_cvm_role_of_several(metadata: Metadata) -> None:
    """Of several roles the first is taken."""
    metadata.role("auditor")
    metadata.says("auditor\r\nother\r\n", at="")
    assert cvm_role(metadata=metadata.host).secret_id == ID


def test_cvm_role_is_asked_without_a_proxy(
    metadata: Metadata, nowhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address means this very instance, so a proxy has no place on the way."""
    monkeypatch.setenv("HTTP_PROXY", f"http://{nowhere}")
    monkeypatch.setenv("http_proxy", f"http://{nowhere}")
    metadata.role()
    assert cvm_role(metadata=metadata.host).secret_id == ID


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"Code": "InvalidRole"}, r"the CVM role auditor has no credentials: InvalidRole"),
        ({"Code": None}, r"gave no credentials \(KeyError\)"),
        ({"TmpSecretId": None}, r"gave no credentials \(KeyError\)"),
        ({"TmpSecretKey": None}, r"gave no credentials \(KeyError\)"),
        ({"Token": None}, r"gave no credentials \(KeyError\)"),
        ({"ExpiredTime": None}, r"gave no credentials \(KeyError\)"),
        ({"ExpiredTime": KEY}, r"gave no credentials \(ValueError\)"),
        ({"ExpiredTime": [KEY]}, r"gave no credentials \(TypeError\)"),
        ({"TmpSecretKey": 5}, r"secret_key: expected a text, got int"),
        ({"TmpSecretKey": "canary\n"}, r"secret_key: expected visible ASCII"),
    ],
)
def test_a_role_without_credentials(
    changes: dict[str, Any], fault: str, metadata: Metadata
) -> None:
    """The message says what the service lacks, without what it gave."""
    metadata.role(**changes)
    with pytest.raises(CredentialsError, match=fault) as caught:
        cvm_role(metadata=metadata.host)
    assert "canary" not in said(caught.value)


@pytest.mark.parametrize(
    "body",
    ["", "null", "[]", '"canary"', "5", "canary", '{"Code": "Succ', b"\xff\xfe", "x" * 100_000],
    ids=[*("empty", "null", "list", "text", "number", "no JSON", "cut", "no text", "long")],
)
def test_a_role_that_answers_garbage(body: str | bytes, metadata: Metadata) -> None:
    """Whatever comes in place of the documented answer is no credentials."""
    metadata.role()
    metadata.says(body)
    with pytest.raises(CredentialsError, match="gave no credentials") as caught:
        cvm_role(metadata=metadata.host)
    assert "canary" not in said(caught.value)


@pytest.mark.parametrize("names", ["", "\n", " \r\n"], ids=repr)
def test_an_instance_with_an_empty_list_of_roles(names: str, metadata: Metadata) -> None:
    """No name, no credentials."""
    metadata.says(names, at="")
    with pytest.raises(CredentialsError, match="gave no credentials"):
        cvm_role(metadata=metadata.host)


@pytest.mark.parametrize("status", [302, 403, 404, 500])
@pytest.mark.parametrize("at", ["", "auditor"], ids=["list", "role"])
def test_a_refusing_metadata_service(at: str, status: int, metadata: Metadata) -> None:
    """A status other than 200 is told; a redirect is not followed."""
    metadata.role()
    metadata.says("canary", at, status)
    with pytest.raises(CredentialsError, match=rf"there is no CVM role here .*status {status}"):
        cvm_role(metadata=metadata.host)


def test_no_metadata_service(nowhere: str) -> None:
    """Outside the cloud nobody listens."""
    with pytest.raises(CredentialsError, match=r"no CVM role here \(ConnectionRefusedError"):
        cvm_role(metadata=nowhere)


def test_a_hanging_metadata_service() -> None:
    """Who accepts and does not answer is given up after a second."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(CredentialsError, match=r"no CVM role here \(TimeoutError"):
            cvm_role(metadata=host)


# What an error tracker would collect


def test_no_frame_shows_the_environment(monkeypatch: pytest.MonkeyPatch, nowhere: str) -> None:
    """With half a pair set, the half is in no local variable of a traceback."""
    monkeypatch.setenv("TENCENTCLOUD_SECRET_KEY", KEY)
    with pytest.raises(CredentialsError) as caught:
        default_chain(metadata=nowhere)
    assert "canary" not in captured(caught.value)


@pytest.mark.parametrize(("text", "fault"), BAD_PROFILES)
def test_no_frame_shows_a_profile(text: str | bytes, fault: str, profile: Path) -> None:
    """What was read of a bad profile is in no local variable of a traceback."""
    write(profile, text)
    with pytest.raises(CredentialsError, match=fault) as caught:
        default_chain({})
    assert "canary" not in captured(caught.value)


@pytest.mark.parametrize(("text", "fault"), BAD_TCCLI)
def test_no_frame_shows_a_tccli_profile(text: str | bytes, fault: str, tccli: Path) -> None:
    """What was read of a bad profile of tccli is in no local variable of a traceback."""
    write(tccli, text)
    with pytest.raises(CredentialsError, match=fault) as caught:
        default_chain({})
    assert "canary" not in captured(caught.value)


@pytest.mark.parametrize("changes", [{"Token": None}, {"Code": "No"}, {"TmpSecretId": 5}], ids=repr)
def test_no_frame_shows_a_role(changes: dict[str, Any], metadata: Metadata) -> None:
    """What a role gave beside its fault is in no local variable of a traceback."""
    metadata.role(**changes)
    with pytest.raises(CredentialsError) as caught:
        cvm_role(metadata=metadata.host)
    assert "canary" not in captured(caught.value)
