"""Whoever provides credentials, and a cache that keeps them current.

A provider is a callable that is asked again whenever fresh credentials are needed. One cache per
client keeps what it gave until shortly before its expiry and lets one caller at a time refresh it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol, runtime_checkable

import anyio.to_thread

from ci_live_audit.credentials.values import Credentials
from ci_live_audit.errors import CredentialsError

__all__ = ["CredentialCache", "CredentialsLike", "CredentialsSource"]

logger: logging.Logger = logging.getLogger("ci_live_audit.credentials")


class CredentialsLike(Protocol):
    """What Tencent's SDKs call a credential object."""

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
    """A credential object that gives all three at once, so that a refresh cannot tear them."""

    def get_credential_info(self) -> tuple[str, str, str | None]:
        """Id, key and token."""
        ...


Provider = Callable[[], Credentials | Awaitable[Credentials]]
CredentialsSource = Credentials | Provider | CredentialsLike | CredentialsInfo


class CredentialCache:
    """Current credentials for every attempt, refreshed ahead of time by one caller at a time.

    Args:
        source: What provides them.
        lasting: Whether credentials without an expiry are kept until the service refuses them;
            otherwise the source is asked again each time, for it may rotate them.
        now: Unix seconds.
    """

    #: Credentials are renewed this many seconds before they end.
    AHEAD = 300.0
    #: After a failed renewal the old ones are used this many seconds more before the next try.
    PAUSE = 10.0
    #: A provider that takes longer than so many seconds has failed.
    PATIENCE = 30.0

    def __init__(
        self,
        source: CredentialsSource,
        *,
        lasting: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._fixed = source if isinstance(source, Credentials) else None
        self._provide = _provider(source)
        self._lasting = lasting
        self._now = now
        self._kept: Credentials | None = None
        self._asking: asyncio.Task[Credentials | CredentialsError] | None = None
        self._paused_until = 0.0

    async def get(self) -> Credentials:
        """The current credentials.

        Raises:
            CredentialsError: There are none.
        """
        if self._fixed is not None:
            return self._fixed
        kept = self._kept
        if kept is not None and self._is_fresh(kept):
            return kept
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
        elif kept is not None and self._lasts(kept):
            return kept
        # The task is everybody's: a caller that is cancelled leaves it to the others.
        asking = self._asking
        await asyncio.wait([asking])
        found = CredentialsError("the client was closed") if asking.cancelled() else asking.result()
        if isinstance(found, CredentialsError):
            raise CredentialsError(str(found)) from found
        return found

    def is_valid(self, credentials: Credentials) -> bool:
        """Whether credentials have not ended."""
        return credentials.expires_at is None or self._now() < credentials.expires_at

    def invalidate(self, credentials: Credentials) -> bool:
        """Forget credentials that the service does not accept; whether others can be had."""
        if self._kept is credentials:
            self._kept = None
        return self._fixed is None

    async def have_changed(self, credentials: Credentials) -> bool:
        """Whether a provider that is asked every time has others by now than were refused."""
        if self._fixed is not None or self._lasting or credentials.expires_at is not None:
            return False
        try:
            return await self.get() != credentials
        except CredentialsError:
            return False

    def close(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()

    def _lasts(self, kept: Credentials) -> bool:
        return kept.expires_at is not None and self.is_valid(kept)

    def _is_fresh(self, kept: Credentials) -> bool:
        if kept.expires_at is None:
            return self._lasting
        ahead = 0.0 if self._now() < self._paused_until else self.AHEAD
        return self._now() < kept.expires_at - ahead

    async def _ask(self) -> Credentials | CredentialsError:
        """What the provider gives, or the error as a value: a task nobody awaits may not raise."""
        try:
            async with asyncio.timeout(self.PATIENCE):
                self._kept = found = await self._provide()
        except Exception as problem:  # noqa: BLE001 - a provider is anybody's code
            kept = self._kept
            if kept is not None and self._lasts(kept):
                logger.warning("credentials could not be renewed, using the old: %s", problem)
                self._paused_until = self._now() + self.PAUSE
                return kept
            return self._explain(problem)
        finally:
            self._asking = None
        return found

    def _explain(self, problem: Exception) -> CredentialsError:
        if isinstance(problem, CredentialsError):
            return problem
        if isinstance(problem, TimeoutError):
            reason = f"nothing within {self.PATIENCE:g} s"
        else:
            reason = f"{type(problem).__name__}: {problem}"
        error = CredentialsError(f"the credentials provider failed: {reason}")
        error.__cause__ = problem
        return error


def _provider(source: CredentialsSource) -> Callable[[], Awaitable[Credentials]]:
    """Every kind of source as one async callable. What may block runs in a worker thread."""
    ask: Callable[[], object]
    if isinstance(source, CredentialsInfo):
        ask = partial(_from_info, source)
    elif callable(source):
        ask = source
    elif all(inspect.getattr_static(source, name, None) for name in ("secret_id", "secret_key")):
        ask = partial(_from_attributes, source)
    else:
        raise CredentialsError(
            "credentials: expected Credentials, a provider, or an object with secret_id, "
            f"secret_key and token; got {type(source).__name__}"
        )

    async def provide() -> Credentials:
        if inspect.iscoroutinefunction(ask):
            found = await ask()
        else:
            found = await anyio.to_thread.run_sync(ask, abandon_on_cancel=True)
            if inspect.isawaitable(found):
                found = await found
        if not isinstance(found, Credentials):
            raise CredentialsError(
                f"the credentials provider gave {type(found).__name__}, not Credentials"
            )
        return found

    return provide


def _from_info(source: CredentialsInfo) -> Credentials:
    secret_id, secret_key, token = source.get_credential_info()
    return Credentials(secret_id, secret_key, token or None)


def _from_attributes(source: Any) -> Credentials:
    return Credentials(source.secret_id, source.secret_key, source.token or None)
