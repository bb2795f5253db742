"""Providers of credentials, and a cache that keeps credentials current.

A provider is a callable that returns fresh credentials. One cache per client keeps them until
shortly before they expire; then one caller at a time renews them.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Protocol, runtime_checkable

from ci_live_audit._loop import deadline
from ci_live_audit._threads import Threads
from ci_live_audit.credentials.values import Credentials, without_frames
from ci_live_audit.errors import ConfigurationError, CredentialsError

__all__ = ["CredentialCache", "CredentialsLike", "CredentialsSource"]

logger: logging.Logger = logging.getLogger("ci_live_audit.credentials")


class CredentialsLike(Protocol):
    """A credential object of Tencent's SDKs."""

    @property
    def secret_id(self) -> str:
        """``SecretId``."""
        ...

    @property
    def secret_key(self) -> str:
        """``SecretKey``."""
        ...

    @property
    def token(self) -> str | None:
        """Token of temporary credentials."""
        ...


@runtime_checkable
class CredentialsInfo(Protocol):
    """A credential object that returns all three at once, so that a renewal cannot mix them."""

    def get_credential_info(self) -> tuple[str, str, str | None]:
        """Return id, key and token."""
        ...


Provider = Callable[[], Credentials | Awaitable[Credentials]]
CredentialsSource = Credentials | Provider | CredentialsLike | CredentialsInfo


class CredentialCache:
    """Provides current credentials for every attempt.

    Those without an expiry are kept until the service refuses them if they are ``lasting``;
    otherwise the provider is called every time, because it may rotate them.

    Raises:
        CredentialsError: The source is of no known kind.
    """

    #: Seconds before the expiry at which credentials are renewed.
    RENEW_AHEAD = 300.0
    #: Seconds from a failed renewal to the next, as long as the old credentials are valid.
    RENEWAL_PAUSE = 10.0
    #: Seconds that a provider may take.
    PROVIDER_TIMEOUT = 30.0
    #: Threads for calls of the provider; one that is stuck is left alone.
    THREADS = 4

    def __init__(
        self,
        source: CredentialsSource,
        *,
        lasting: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._fixed = source if isinstance(source, Credentials) else None
        self._call = _provider(source)
        self._lasting = lasting
        self._now = now
        self._threads = Threads(self.THREADS)
        self._kept: Credentials | None = None
        self._renewal: asyncio.Task[Credentials | Exception] | None = None
        self._waiting = 0
        self._paused_until = 0.0

    async def get(self, until: float = math.inf) -> Credentials:
        """Return the current credentials.

        Args:
            until: Time of the loop up to which to wait for a renewal.

        Raises:
            TimeoutError: The time has come.
            CredentialsError: The provider failed.
            ConfigurationError: The client was closed meanwhile.
        """
        if self._fixed is not None:
            return self._fixed
        # Who has waited for a renewal goes on first, in a step or two.
        while self._waiting and (self._renewal is None or self._renewal.done()):  # noqa: ASYNC110
            await asyncio.sleep(0)
        paused = self._now() < self._paused_until
        if kept := self._valid(ahead=0.0 if paused else self.RENEW_AHEAD):
            return kept
        if self._renewal is None:
            self._renewal = asyncio.create_task(self._renew())
            self._renewal.add_done_callback(self._renewed)
        elif kept := self._valid():
            return kept
        # All callers share the task, so one that is cancelled does not cancel it.
        renewal = self._renewal
        self._waiting += 1
        try:
            async with deadline(until):
                await asyncio.wait([renewal])
        finally:
            self._waiting -= 1
        if renewal.cancelled():
            raise ConfigurationError("the client was closed during the call")
        result = renewal.result()
        if isinstance(result, Credentials):
            return result
        if isinstance(result, CredentialsError):
            raise CredentialsError(str(result)) from result
        reason = f"{type(result).__name__}: {result}"
        if isinstance(result, TimeoutError):
            reason = f"nothing within {self.PROVIDER_TIMEOUT:g} s"
        raise CredentialsError(f"the credentials provider failed: {reason}") from result

    def is_valid(self, credentials: Credentials, ahead: float = 0.0) -> bool:
        """Return whether credentials have not expired, nor will within ``ahead`` seconds."""
        return credentials.expires_at is None or self._now() < credentials.expires_at - ahead

    def invalidate(self, credentials: Credentials) -> bool:
        """Drop refused credentials; return whether the provider may have others."""
        if self._kept is credentials:
            self._kept = None
        return self._fixed is None

    async def have_changed(self, credentials: Credentials, until: float = math.inf) -> bool:
        """Return whether a provider that is called every time now has other credentials."""
        if self._fixed is None and not self._lasting and credentials.expires_at is None:
            with suppress(ConfigurationError, TimeoutError):
                return await self.get(until) != credentials
        return False

    def close(self) -> None:
        """Cancel a renewal in progress."""
        if self._renewal is not None:
            self._renewal.cancel()

    def _valid(self, ahead: float = 0.0) -> Credentials | None:
        kept = self._kept
        return kept if kept is not None and self.is_valid(kept, ahead) else None

    async def _renew(self) -> Credentials | Exception:
        """Call the provider; return an error rather than raise it in a task nobody may await."""
        try:
            async with deadline(asyncio.get_running_loop().time() + self.PROVIDER_TIMEOUT):
                found = await self._provide()
        except Exception as problem:  # noqa: BLE001 - a provider is anybody's code
            if kept := self._valid():
                logger.warning("credentials could not be renewed, using the old: %s", problem)
                self._paused_until = self._now() + self.RENEWAL_PAUSE
            return kept or problem
        self._kept = found if self._lasting or found.expires_at is not None else None
        return found

    def _renewed(self, _: asyncio.Task[Credentials | Exception]) -> None:
        # Not in the task, which an eager one would do before anybody had noted it.
        self._renewal = None

    async def _provide(self) -> Credentials:
        """Call the provider, in a thread unless it is async: it may block."""
        call = self._call
        on_loop = inspect.iscoroutinefunction(call)
        try:
            found = call() if on_loop else await self._threads.run(call)
            if inspect.isawaitable(found):
                found = await found
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody has cancelled this task, so it is the provider's own.
            raise CredentialsError("the credentials provider raised CancelledError") from None
        if not isinstance(found, Credentials):
            kind = type(found).__name__
            raise CredentialsError(f"the credentials provider gave {kind}, not Credentials")
        return found


def _provider(source: CredentialsSource) -> Callable[[], object]:
    if isinstance(source, CredentialsInfo):
        return partial(_read, source)
    if callable(source):
        return source
    if all(inspect.getattr_static(source, name, None) for name in ("secret_id", "secret_key")):
        return partial(_read, source)
    raise CredentialsError(
        "credentials: expected Credentials, a provider, or an object with secret_id, "
        f"secret_key and token; got {type(source).__name__}"
    )


@without_frames
def _read(source: CredentialsLike | CredentialsInfo) -> Credentials:
    if isinstance(source, CredentialsInfo):
        secret_id, secret_key, token = source.get_credential_info()
    else:
        secret_id, secret_key, token = source.secret_id, source.secret_key, source.token
    return Credentials(secret_id, secret_key, token or None)
