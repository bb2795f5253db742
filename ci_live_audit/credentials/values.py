"""`Credentials`, which reveal neither key nor token."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from typing import NoReturn, ParamSpec, Self, SupportsIndex, TypeVar

import attrs

from ci_live_audit._checks import text
from ci_live_audit.errors import ConfigurationError, CredentialsError

__all__ = ["Credentials", "Secret", "without_frames"]

P = ParamSpec("P")
T = TypeVar("T")
QUOTES = "\"'`"
# Of shells, templates, pipelines and manuals: ${NAME}, $NAME, $(NAME), {{ name }}, %NAME%, <name>.
PLACEHOLDER = re.compile(r"\$\{.*\}|\$\w+|\$\(.*\)|\{\{.*\}\}|%\w+%|<.*>")


def without_frames(call: Callable[P, T]) -> Callable[P, T]:
    """Raise a function's errors anew, without the frames and causes in which secrets may be."""

    @wraps(call)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except CredentialsError as problem:
            reason = str(problem)
        raise CredentialsError(reason)

    return called


class Secret(str):
    """A text that no ``repr`` shows: neither in a log nor in the locals of a traceback."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __getitem__(self, key: SupportsIndex | slice) -> Secret:
        return Secret(super().__getitem__(key))  # some tracebacks show the start of a text


def _fault(plain: str) -> str:
    """Say what is wrong with a value, without the value; empty if nothing is."""
    if not plain:
        return " at all"
    if plain != plain.strip():
        return " with blanks or line breaks around them"
    if not re.fullmatch(r"[!-~]+", plain):
        return " with blanks, line breaks or others among them"
    if plain[0] in QUOTES or plain[-1] in QUOTES:
        return " with quotes around them; remove the quotes"
    if PLACEHOLDER.fullmatch(plain):
        return ", a placeholder whose value was never put in"
    return ""


class Sealed:
    """A box around a `Secret`, for tools that take objects apart, as ``attrs.asdict`` does."""

    __slots__ = ("text",)

    def __init__(self, name: str, value: object) -> None:
        plain = text(name, value.text if isinstance(value, Sealed) else value)
        if fault := _fault(plain):
            raise CredentialsError(
                f"{name}: expected visible ASCII characters, at least one; got {len(plain)} "
                f"characters{fault}"
            )
        self.text: Secret = Secret(plain)

    def __repr__(self) -> str:
        return repr(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sealed) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("Credentials are not pickled: pass what provides them instead")


@attrs.frozen(repr=False, init=False)
class Credentials:
    """A key pair (``SecretId`` and ``SecretKey``), with a token if it is temporary.

    It cannot be pickled, and its ``repr`` shows neither key nor token. ``expires_at`` is in Unix
    seconds; None if the credentials do not expire, or if their provider is to be called before
    every attempt.

    Raises:
        CredentialsError: A value is empty, or cannot be sent in a header.
    """

    secret_id: str
    _secret_key: Sealed
    _token: Sealed | None
    expires_at: float | None

    def __init__(
        self,
        secret_id: str,
        secret_key: str,
        token: str | None = None,
        *,
        expires_at: float | None = None,
    ) -> None:
        try:
            if isinstance(expires_at, bool) or not isinstance(expires_at, int | float | None):
                kind = type(expires_at).__name__
                raise CredentialsError(f"expires_at: expected Unix seconds, got {kind}")
            self.__attrs_init__(  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
                Sealed("secret_id", secret_id).text,
                Sealed("secret_key", secret_key),
                None if token is None else Sealed("token", token),
                expires_at,
            )
            return
        except ConfigurationError as error:
            fault = str(error)
        # A traceback with local variables would show the refused value.
        del self, secret_key, token
        raise CredentialsError(fault)

    @property
    def secret_key(self) -> str:
        """``SecretKey``."""
        return self._secret_key.text

    @property
    def token(self) -> str | None:
        """Token of temporary credentials."""
        return None if self._token is None else self._token.text

    def __repr__(self) -> str:
        return (
            f"Credentials(secret_id={self.secret_id!r}, secret_key={self._secret_key},"
            f" token={self._token}, expires_at={self.expires_at})"
        )
