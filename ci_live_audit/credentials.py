"""Who signs: `Credentials`, whatever provides them, and where they are looked for by default.

A provider is a callable that is asked again whenever fresh credentials are needed. One cache per
client keeps what it gave until shortly before its expiry and lets one caller at a time refresh it.
"""

from __future__ import annotations

import configparser
import http.client
import inspect
import json
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NoReturn, Protocol, runtime_checkable

import anyio
import anyio.to_thread
import attrs

from ci_live_audit.errors import CredentialsError

__all__ = [
    "CredentialCache",
    "Credentials",
    "CredentialsLike",
    "CredentialsSource",
    "Secret",
    "cvm_role",
    "default_chain",
]

logger = logging.getLogger("ci_live_audit.credentials")


class Secret(str):
    """A text that shows itself to no ``repr``: not in a log, not in a traceback's locals."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def _secret(name: str) -> Callable[[str], Secret]:
    def checked(value: object) -> Secret:
        if not isinstance(value, str):
            raise CredentialsError(f"{name}: expected a text, got {type(value).__name__}")
        if not re.fullmatch(r"[!-~]+", value):
            # A line break from a file is the usual reason, so say it without the value.
            raise CredentialsError(
                f"{name}: expected visible ASCII characters only; got "
                f"{len(value)} characters with blanks, line breaks or others among them"
            )
        return Secret(value)

    return checked


@attrs.frozen
class Credentials:
    """A key pair, with a token if it is a temporary one.

    Never pickled, and neither key nor token is shown by ``repr``.

    Args:
        secret_id: ``SecretId``.
        secret_key: ``SecretKey``.
        token: Token of temporary credentials.
        expires_at: Unix seconds at which temporary credentials end; None if they do not, or if
            whoever provides them should be asked before every request.

    Raises:
        CredentialsError: A value is empty, or holds what cannot be sent in a header.
    """

    secret_id: str = attrs.field(converter=_secret("secret_id"))
    secret_key: str = attrs.field(converter=_secret("secret_key"))
    token: str | None = attrs.field(
        default=None, converter=attrs.converters.optional(_secret("token"))
    )
    expires_at: float | None = attrs.field(default=None, kw_only=True)

    def __reduce__(self) -> NoReturn:
        raise TypeError("Credentials are not pickled: pass what provides them instead")


class CredentialsLike(Protocol):
    """What Tencent's SDKs call a credential object."""

    @property
    def secret_id(self) -> str: ...
    @property
    def secret_key(self) -> str: ...
    @property
    def token(self) -> str | None: ...


@runtime_checkable
class CredentialsInfo(Protocol):
    """A credential object that gives all three at once, so that a refresh cannot tear them."""

    def get_credential_info(self) -> tuple[str, str, str | None]: ...


Provider = Callable[[], Credentials | Awaitable[Credentials]]
CredentialsSource = Credentials | Provider | CredentialsLike | CredentialsInfo | None


class CredentialCache:
    """Current credentials for every attempt, refreshed ahead of time by one caller at a time."""

    #: Credentials are renewed this many seconds before they end.
    AHEAD = 300.0
    #: After a failed renewal the old ones are used this many seconds more before the next try.
    PAUSE = 10.0

    def __init__(self, source: CredentialsSource, *, now: Callable[[], float] = time.time) -> None:
        self._fixed = source if isinstance(source, Credentials) else None
        self._provide = _provider(source)
        # An environment does not change under a process; a provider may rotate at any time.
        self._lasting = source is None
        self._now = now
        self._kept: Credentials | None = None
        self._failure: CredentialsError | None = None
        self._paused_until = 0.0
        self._rounds = 0
        self._lock = anyio.Lock()

    async def get(self) -> Credentials:
        """Credentials that are valid now.

        Raises:
            CredentialsError: There are none.
        """
        if self._fixed is not None:
            return self._fixed
        kept = self._kept
        if kept is not None and (
            self._is_fresh(kept) or (self._lock.locked() and self._is_valid(kept))
        ):
            return kept
        rounds = self._rounds
        async with self._lock:
            if self._rounds == rounds:  # nobody asked the provider while this caller waited
                await self._ask()
            if self._failure is not None:
                raise CredentialsError(str(self._failure)) from self._failure
            assert self._kept is not None
            return self._kept

    def refused(self, credentials: Credentials) -> bool:
        """Forget credentials that the service does not accept; whether others can be had."""
        if self._kept is credentials:
            self._kept = None
        return self._fixed is None

    def _is_fresh(self, kept: Credentials) -> bool:
        if kept.expires_at is None:
            return self._lasting
        ahead = 0.0 if self._now() < self._paused_until else self.AHEAD
        return self._now() < kept.expires_at - ahead

    def _is_valid(self, kept: Credentials) -> bool:
        return kept.expires_at is not None and self._now() < kept.expires_at

    async def _ask(self) -> None:
        try:
            self._kept, self._failure = await self._provide(), None
        except Exception as problem:  # noqa: BLE001 - a provider is anybody's code
            if self._kept is not None and self._is_valid(self._kept):
                logger.warning("credentials could not be renewed, using the old: %s", problem)
                self._paused_until = self._now() + self.PAUSE
            elif isinstance(problem, CredentialsError):
                self._failure = problem
            else:
                self._failure = CredentialsError(
                    f"the credentials provider failed: {type(problem).__name__}: {problem}"
                )
                self._failure.__cause__ = problem
        self._rounds += 1


def _provider(source: CredentialsSource) -> Callable[[], Awaitable[Credentials]]:
    """Every kind of source as one async callable. What may block runs in a worker thread."""
    if source is None:
        ask: Callable[[], object] = default_chain
    elif isinstance(source, CredentialsInfo):
        ask = partial(_from_info, source)
    elif callable(source):
        ask = source
    elif hasattr(source, "secret_id") and hasattr(source, "secret_key"):
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


def _from_attributes(source: CredentialsLike) -> Credentials:
    return Credentials(source.secret_id, source.secret_key, source.token or None)


# The default chain


# Spellings of id, key and token, in the order in which they are tried: Tencent Cloud's tools,
# its function runtimes, the samples of the COS SDKs, coscmd, the samples of the CI documents.
ENVIRONMENT = (
    (
        "TENCENTCLOUD_SECRET_ID",
        "TENCENTCLOUD_SECRET_KEY",
        ("TENCENTCLOUD_TOKEN", "TENCENTCLOUD_SESSION_TOKEN", "TENCENTCLOUD_SECURITY_TOKEN"),
    ),
    ("TENCENTCLOUD_SECRETID", "TENCENTCLOUD_SECRETKEY", ("TENCENTCLOUD_SESSIONTOKEN",)),
    ("COS_SECRET_ID", "COS_SECRET_KEY", ("COS_TOKEN",)),
    ("COS_SECRETID", "COS_SECRETKEY", ("COS_TOKEN",)),
    ("COS_KEY", "COS_SECRET", ("COS_TOKEN",)),
    ("SECRETID", "SECRETKEY", ()),
)
PROFILES = (Path("~/.tencentcloud/credentials"), Path("/etc/tencentcloud/credentials"))
METADATA = "metadata.tencentyun.com"


def default_chain(
    environ: Mapping[str, str] | None = None, *, metadata: str = METADATA
) -> Credentials:
    """The credentials of an existing Tencent environment; blocks, so it runs in a thread.

    In this order: environment variables in all their spellings, ``~/.tencentcloud/credentials``,
    ``/etc/tencentcloud/credentials``, tccli's profile (``TCCLI_PROFILE`` or ``default``), the role
    of the CVM instance.

    Raises:
        CredentialsError: Nothing was found, or what was found first is incomplete or unreadable.
    """
    environ = os.environ if environ is None else environ
    home = Path(environ.get("HOME") or Path.home())
    for names in ENVIRONMENT:
        if found := _from_environment(environ, *names):
            return found
    for profile in PROFILES:
        if found := _from_profile(home / str(profile).removeprefix("~/")):
            return found
    tccli = home / ".tccli" / f"{environ.get('TCCLI_PROFILE') or 'default'}.credential"
    if found := _from_tccli(tccli, metadata):
        return found
    try:
        return cvm_role(metadata=metadata)
    except CredentialsError as problem:
        raise CredentialsError(
            "no credentials found: neither in the environment (TENCENTCLOUD_SECRET_ID and "
            f"TENCENTCLOUD_SECRET_KEY), nor in ~/.tencentcloud/credentials, nor in "
            f"/etc/tencentcloud/credentials, nor in {tccli}; and {problem}. "
            "Set one of them or pass credentials="
        ) from None


def _from_environment(
    environ: Mapping[str, str], id_name: str, key_name: str, token_names: tuple[str, ...]
) -> Credentials | None:
    secret_id, secret_key = environ.get(id_name), environ.get(key_name)
    if not secret_id and not secret_key:
        return None
    if not secret_id or not secret_key:
        raise CredentialsError(
            f"{key_name if secret_id else id_name} is missing in the environment, though "
            f"{id_name if secret_id else key_name} is set"
        )
    tokens = (environ.get(name) for name in token_names)
    return Credentials(secret_id, secret_key, next(filter(None, tokens), None))


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as problem:
        raise CredentialsError(f"{path} cannot be read: {problem}") from None


def _from_profile(path: Path) -> Credentials | None:
    text = _read(path)
    if text is None:
        return None
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
        section = parser["default"]
        return Credentials(
            section["secret_id"], section["secret_key"], section.get("token") or None
        )
    except KeyError as problem:
        raise CredentialsError(f"{path}: {problem.args[0]} is missing") from None
    except configparser.Error as problem:
        # Its text quotes the line, and the line may be a key.
        raise CredentialsError(f"{path}: not an INI file ({type(problem).__name__})") from None


def _from_tccli(path: Path, metadata: str) -> Credentials | None:
    text = _read(path)
    if text is None:
        return None
    try:
        profile = json.loads(text)
        if profile.get("type") == "cvm-role":
            return cvm_role(metadata=metadata)
        return Credentials(profile["secretId"], profile["secretKey"], profile.get("token") or None)
    except KeyError as problem:
        raise CredentialsError(f"{path}: {problem.args[0]} is missing") from None
    except (ValueError, AttributeError):
        raise CredentialsError(f"{path}: not a JSON object") from None


def cvm_role(role: str | None = None, *, metadata: str = METADATA) -> Credentials:
    """The temporary credentials of the role that is bound to this CVM instance; blocks.

    Source: https://www.tencentcloud.com/document/product/213/4934

    Args:
        role: Name of the role; None asks the instance which one it has.
        metadata: Host (and port) of the metadata service.

    Raises:
        CredentialsError: There is no such service here, or it gave no credentials.
    """
    where = "/latest/meta-data/cam/security-credentials/"
    try:
        role = role or _fetch(metadata, where).strip().splitlines()[0]
        answer = json.loads(_fetch(metadata, where + role))
        if answer["Code"] != "Success":
            raise CredentialsError(f"the CVM role {role} has no credentials: {answer['Code']}")
        return Credentials(
            answer["TmpSecretId"],
            answer["TmpSecretKey"],
            answer["Token"],
            expires_at=float(answer["ExpiredTime"]),
        )
    except (OSError, http.client.HTTPException) as problem:
        reason = f"there is no CVM role here ({type(problem).__name__}: {problem})"
    except (ValueError, KeyError, TypeError, IndexError) as problem:
        reason = f"the CVM metadata service gave no credentials ({type(problem).__name__})"
    raise CredentialsError(reason)


def _fetch(host: str, path: str) -> str:
    # One hop inside the instance: no proxy, no TLS, and an answer at once or never.
    connection = http.client.HTTPConnection(host, timeout=1)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        if response.status != http.HTTPStatus.OK:
            raise http.client.HTTPException(f"status {response.status}")
        return response.read(65536).decode()
    finally:
        connection.close()
