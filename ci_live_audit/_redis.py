"""Scripts on a Redis server, each within a time limit; needs the extra ``redis``.

A command that was given up leaves its response on the connection, and the next command would take
it for its own. redis-py closes such a connection; to be certain, every script returns a number that
it was passed, and a response to anything else closes the connections.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from hashlib import sha1
from typing import Any, TypeVar, cast

import attrs

from ci_live_audit._checks import above_zero
from ci_live_audit._loop import deadline
from ci_live_audit.errors import ConfigurationError, chain

__all__ = ["RedisRefused", "RedisUnavailable", "Script", "Server"]

T = TypeVar("T")

#: Words for conditions of a server that pass.
PASSING = ("OOM", "maxmemory", "MISCONF", "NOREPLICAS", "BUSY")


class RedisUnavailable(Exception):
    """Redis does not respond, or cannot run a script at the moment."""


class RedisRefused(RedisUnavailable):
    """Redis refuses the script: the password, the permissions, the version or the keys are wrong.

    It may have accepted it a minute ago, and may do so again.
    """


@attrs.frozen
class Script:
    """A script in Lua; the first that it returns is ``ARGV[1]``, a number."""

    text: str

    @property
    def digest(self) -> str:
        """What the server knows it by."""
        return _sha1(self.text)


class Server:
    """A Redis server, or several that stand for one.

    Args:
        redis: A client of ``redis.asyncio``, or a URL.
        timeout: Seconds that a script may take, connecting included.

    Attributes:
        place: Where the server is, without credentials.
        timeout: As it was passed.

    Raises:
        ConfigurationError: The client or the URL cannot be used, or redis-py is missing.
    """

    def __init__(self, redis: Any, timeout: float) -> None:
        self._client, fault = _client(redis)
        # A text may hold a password, and a traceback may show the arguments.
        self._ours = isinstance(redis, str)
        del redis
        if fault:
            raise ConfigurationError(f"redis: {fault}")
        self.timeout: float = above_zero("timeout", timeout, "seconds", at_most=60)
        self._number = 0
        self.place: str = _place(self._client)

    async def run(self, script: Script, keys: Sequence[str], *arguments: float | str) -> list[int]:
        """Run a script that returns integers, and return what follows the first of them.

        Raises: as `call` does.
        """
        return [int(number) for number in await self.call(script, keys, *arguments)]

    async def call(self, script: Script, keys: Sequence[str], *arguments: float | str) -> list[Any]:
        """Run a script and return what follows the first number of its response.

        Raises:
            RedisRefused: It is refused.
            RedisUnavailable: There is no response in time, or not to this script.
        """
        self._number += 1
        number = self._number  # another call may be made meanwhile
        given = (len(keys), *keys, number, *arguments)

        async def ask() -> list[Any]:
            response = await self._evaluate(script, given)
            if response[0] == number:
                return list(response[1:])
            await self._drop()
            raise RedisUnavailable("the response is to another command")

        return await self._in_time(ask)

    async def command(self, *words: str) -> Any:
        """Return the response to a command.

        Raises:
            RedisRefused: It is refused.
            RedisUnavailable: There is no response in time.
        """
        return await self._in_time(lambda: self._client.execute_command(*words))

    async def aclose(self) -> None:
        """Close the connections that were opened for a URL; a client that was given stays open."""
        if self._ours:
            with contextlib.suppress(TimeoutError):  # with TLS, the server has a say in it
                async with deadline(asyncio.get_running_loop().time() + self.timeout):
                    await self._client.aclose()

    async def _in_time(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Return what Redis says, or raise what is wrong with it."""
        try:
            async with deadline(asyncio.get_running_loop().time() + self.timeout):
                return await ask()
        except TimeoutError:
            fault = RedisUnavailable(f"no response within {self.timeout:g} s")
        # Whatever it is, redis-py has closed the connection, unless Redis has answered.
        except Exception as error:  # noqa: BLE001
            fault = error if isinstance(error, RedisUnavailable) else _fault(error)
        raise fault  # here it has no context, which may show a password

    async def _evaluate(self, script: Script, given: tuple[Any, ...]) -> Any:
        from redis import exceptions as kinds  # noqa: PLC0415 - needs the extra

        by_digest = ("EVALSHA", script.digest, *given)
        try:
            try:
                return await self._client.execute_command(*by_digest)
            except kinds.ConnectionError:  # an idle connection may just have been closed
                return await self._client.execute_command(*by_digest)
        except kinds.NoScriptError:
            return await self._client.execute_command("EVAL", script.text, *given)
        except kinds.ReadOnlyError:  # a new connection may lead to the new master
            await self._drop()
            raise

    async def _drop(self) -> None:
        """Close the connections that nobody is using."""
        pool = getattr(self._client, "connection_pool", None)
        if pool is not None:  # redis-py's client of a cluster has none
            await pool.disconnect(inuse_connections=False)


@cache
def _sha1(text: str) -> str:
    return sha1(text.encode(), usedforsecurity=False).hexdigest()


def _client(redis: Any) -> tuple[Any, str]:
    """Return a client, or what is wrong with what was given."""
    try:
        from redis.asyncio import Redis, RedisCluster  # noqa: PLC0415 - needs the extra
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415
    except ImportError:
        return None, 'this needs redis-py: pip install "ci-live-audit[redis]"'
    if isinstance(redis, Redis | RedisCluster):
        return redis, ""
    if not isinstance(redis, str):
        kind = f"{type(redis).__module__}.{type(redis).__qualname__}"
        return None, f"expected a URL or a client of redis.asyncio, got {kind}"
    try:
        # Its options have no types.
        make = cast("Any", Redis).from_url
        client = make(
            redis, retry=Retry(NoBackoff(), 0), socket_timeout=None, socket_connect_timeout=None
        )
        client.connection_pool.make_connection()  # looks at the options, and does not connect
    except (ValueError, TypeError):
        form = "redis://[user:password@]host[:port][/db], rediss://… or unix://…"
        return None, f"expected a URL {form}, with options of redis-py"
    return client, ""


def _place(client: Any) -> str:
    pool = getattr(client, "connection_pool", None)
    if pool is None:
        return "the cluster"
    if hasattr(pool, "service_name"):
        return f"the master {pool.service_name}"
    options = pool.connection_kwargs
    host, port = options.get("host", "localhost"), options.get("port", 6379)
    return str(options.get("path") or f"{host}:{port}")


def _fault(error: Exception) -> RedisUnavailable:
    """Return what an exception of redis-py means, in one text."""
    from redis import exceptions as kinds  # noqa: PLC0415 - needs the extra

    # redis-py hides it behind another where it asks for the version of the protocol first.
    unknown = [one for one in chain(error) if isinstance(one, kinds.AuthenticationError)]
    error = unknown[0] if unknown else error
    text = f"{type(error).__name__}: {error}"
    login = "check the user and the password"
    if "unauthenticated" in text:  # a script has more arguments than a stranger may send
        return RedisRefused(f"{text} ({login})")
    allow = "allow this user +@scripting +@read +@write +time and the keys ci_live_audit:*"
    if "executing the script" in text:  # Redis 7 looks at each command of it
        return RedisRefused(f"{text} ({allow})")
    hints: list[tuple[type[Exception], str]] = [
        (kinds.AuthenticationError, login),
        (kinds.NoPermissionError, allow),
        (kinds.ReadOnlyError, "this is a replica; pass the address of the master"),
        (kinds.ResponseError, "it takes Redis 5 or newer, with scripts, and keys of another name"),
    ]
    passing = isinstance(error, kinds.ClusterDownError | kinds.TryAgainError)
    if not passing and not any(word in str(error) for word in PASSING):
        for kind, hint in hints:
            if isinstance(error, kind):
                return RedisRefused(f"{text} ({hint})")
    return RedisUnavailable(text)
