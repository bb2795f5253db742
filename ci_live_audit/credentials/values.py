"""`Credentials`, which reveal neither key nor token."""

from __future__ import annotations

import re
from typing import NoReturn, Self, SupportsIndex

import attrs

from ci_live_audit.errors import CredentialsError

__all__ = ["Credentials", "Secret"]


class Secret(str):
    """A text that no ``repr`` shows: neither in a log nor in the locals of a traceback."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __getitem__(self, key: SupportsIndex | slice) -> Secret:
        return Secret(super().__getitem__(key))  # some tracebacks show the start of a text


class Sealed:
    """A box around a `Secret`, for tools that take objects apart, as ``attrs.asdict`` does."""

    __slots__ = ("_text",)

    def __init__(self, text: Secret) -> None:
        self._text = text

    def open(self) -> Secret:
        """Return the secret."""
        return self._text

    def __repr__(self) -> str:
        return repr(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sealed) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> NoReturn:
        raise TypeError("Credentials are not pickled: pass what provides them instead")


def _visible(name: str, value: str) -> Secret:
    if not isinstance(value, str):
        raise CredentialsError(f"{name}: expected a text, got {type(value).__name__}")
    if not re.fullmatch(r"[!-~]+", value):
        # A line break from a file is the usual reason, so say so without the value.
        raise CredentialsError(
            f"{name}: expected visible ASCII characters, at least one; got {len(value)} characters"
            f"{' with blanks, line breaks or others among them' if value else ''}"
        )
    return Secret(str.__str__(value))  # the value of a str enum, not what it prints


def _secret_id(value: str) -> str:
    return _visible("secret_id", value)


def _secret_key(value: str) -> Sealed:
    return value if isinstance(value, Sealed) else Sealed(_visible("secret_key", value))


def _token(value: str | None) -> Sealed | None:
    if value is None or isinstance(value, Sealed):
        return value
    return Sealed(_visible("token", value))


def _expires_at(value: float | None) -> float | None:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise CredentialsError(f"expires_at: expected Unix seconds, got {type(value).__name__}")


@attrs.frozen(repr=False, init=False)
class Credentials:
    """A key pair, with a token if it is temporary.

    It cannot be pickled, and its ``repr`` shows neither key nor token.

    Args:
        secret_id: ``SecretId``.
        secret_key: ``SecretKey``.
        token: Token of temporary credentials.
        expires_at: Unix seconds at which temporary credentials expire; None if they do not, or if
            their provider is to be called before every attempt.

    Raises:
        CredentialsError: A value is empty, or cannot be sent in a header.
    """

    secret_id: str = attrs.field(converter=_secret_id)
    _secret_key: Sealed = attrs.field(converter=_secret_key)
    _token: Sealed | None = attrs.field(default=None, converter=_token)
    expires_at: float | None = attrs.field(default=None, converter=_expires_at, kw_only=True)

    def __init__(
        self,
        secret_id: str,
        secret_key: str,
        token: str | None = None,
        *,
        expires_at: float | None = None,
    ) -> None:
        try:
            self.__attrs_init__(  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
                secret_id, secret_key, token, expires_at=expires_at
            )
            return
        except CredentialsError as error:
            fault = str(error)
        # A traceback with local variables would show the refused value.
        del secret_key, token
        raise CredentialsError(fault)

    @property
    def secret_key(self) -> str:
        """``SecretKey``."""
        return self._secret_key.open()

    @property
    def token(self) -> str | None:
        """Token of temporary credentials."""
        return None if self._token is None else self._token.open()

    def __repr__(self) -> str:
        if not hasattr(self, "expires_at"):
            return "Credentials()"  # incomplete, in a traceback
        return (
            f"Credentials(secret_id={self.secret_id!r}, secret_key={self._secret_key},"
            f" token={self._token}, expires_at={self.expires_at})"
        )

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("Credentials are not pickled: pass what provides them instead")
