"""Providers of credentials, and a cache that keeps credentials current.

A provider is a callable that returns fresh credentials. One cache per client keeps them until
shortly before they expire; then one caller at a time renews them.
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

    Args:
        source: Credentials, or where they come from.
        lasting: Whether credentials without an expiry are kept until the service refuses them;
            otherwise the provider is called every time, because it may rotate them.
        now: Returns Unix seconds.

    Raises:
        CredentialsError: The source is of no known kind.
    """

    #: Seconds before the expiry at which credentials are renewed.
    RENEW_AHEAD = 300.0
    #: Seconds from a failed renewal to the next, as long as the old credentials are valid.
    RENEWAL_PAUSE = 10.0
    #: Seconds that a provider may take.
    PROVIDER_TIMEOUT = 30.0

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
        self._renewal: asyncio.Task[Credentials | CredentialsError] | None = None
        self._paused_until = 0.0

    async def get(self) -> Credentials:
        """Return the current credentials.

        Raises:
            CredentialsError: The provider failed, or the client was closed meanwhile.
        """
        if self._fixed is not None:
            return self._fixed
        kept = self._kept
        if kept is not None and self._is_fresh(kept):
            return kept
        if self._renewal is None:
            self._renewal = asyncio.create_task(self._renew())
        elif kept is not None and self._lasts(kept):
            return kept
        # All callers share the task, so one that is cancelled does not cancel it.
        renewal = self._renewal
        await asyncio.wait([renewal])
        if renewal.cancelled():
            raise CredentialsError("the client was closed")
        result = renewal.result()
        if isinstance(result, CredentialsError):
            raise CredentialsError(str(result)) from result
        return result

    def is_valid(self, credentials: Credentials) -> bool:
        """Return whether credentials have not expired."""
        return credentials.expires_at is None or self._now() < credentials.expires_at

    def invalidate(self, credentials: Credentials) -> bool:
        """Drop refused credentials; return whether the provider may have others."""
        if self._kept is credentials:
            self._kept = None
        return self._fixed is None

    async def have_changed(self, credentials: Credentials) -> bool:
        """Return whether a provider that is called every time now has other credentials."""
        if self._fixed is not None or self._lasting or credentials.expires_at is not None:
            return False
        try:
            return await self.get() != credentials
        except CredentialsError:
            return False

    def close(self) -> None:
        """Cancel a renewal in progress."""
        if self._renewal is not None:
            self._renewal.cancel()

    def _lasts(self, kept: Credentials) -> bool:
        return kept.expires_at is not None and self.is_valid(kept)

    def _is_fresh(self, kept: Credentials) -> bool:
        if kept.expires_at is None:
            return self._lasting
        ahead = 0.0 if self._now() < self._paused_until else self.RENEW_AHEAD
        return self._now() < kept.expires_at - ahead

    async def _renew(self) -> Credentials | CredentialsError:
        """Call the provider; return an error rather than raise it in a task nobody may await."""
        try:
            async with asyncio.timeout(self.PROVIDER_TIMEOUT):
                self._kept = found = await self._provide()
        except Exception as problem:  # noqa: BLE001 - a provider is anybody's code
            kept = self._kept
            if kept is not None and self._lasts(kept):
                logger.warning("credentials could not be renewed, using the old: %s", problem)
                self._paused_until = self._now() + self.RENEWAL_PAUSE
                return kept
            return self._explain(problem)
        finally:
            self._renewal = None
        return found

    def _explain(self, problem: Exception) -> CredentialsError:
        if isinstance(problem, CredentialsError):
            return problem
        reason = f"{type(problem).__name__}: {problem}"
        if isinstance(problem, TimeoutError):
            reason = f"nothing within {self.PROVIDER_TIMEOUT:g} s"
        error = CredentialsError(f"the credentials provider failed: {reason}")
        error.__cause__ = problem
        return error


def _provider(source: CredentialsSource) -> Callable[[], Awaitable[Credentials]]:
    """Return any source as an async callable, which runs code that may block in a thread."""
    call: Callable[[], object]
    if isinstance(source, CredentialsInfo):
        call = partial(_from_info, source)
    elif callable(source):
        call = source
    elif all(inspect.getattr_static(source, name, None) for name in ("secret_id", "secret_key")):
        call = partial(_from_attributes, source)
    else:
        raise CredentialsError(
            "credentials: expected Credentials, a provider, or an object with secret_id, "
            f"secret_key and token; got {type(source).__name__}"
        )

    async def provide() -> Credentials:
        if inspect.iscoroutinefunction(call):
            found = await call()
        else:
            found = await anyio.to_thread.run_sync(call, abandon_on_cancel=True)
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
