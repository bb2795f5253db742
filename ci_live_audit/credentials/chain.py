"""Finds credentials where Tencent Cloud's tools keep them: environment, profiles, CVM role.

Everything here blocks (files, the metadata service) and is meant for a worker thread.
"""

from __future__ import annotations

import configparser
import http.client
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from ci_live_audit.credentials.values import Credentials, without_frames
from ci_live_audit.errors import CredentialsError

__all__ = ["IN_PYTHON", "cvm_role", "default_chain", "search"]

Environ = Mapping[str, str]
TOKENS = ("TENCENTCLOUD_TOKEN", "TENCENTCLOUD_SESSION_TOKEN", "TENCENTCLOUD_SECURITY_TOKEN")
# Names of id, key and tokens, in order of precedence: Tencent Cloud's tools, its function runtimes,
# the samples of the COS SDKs, coscmd, the samples of the CI documents.
ENVIRONMENT = (
    ("TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY", TOKENS),
    ("TENCENTCLOUD_SECRETID", "TENCENTCLOUD_SECRETKEY", ("TENCENTCLOUD_SESSIONTOKEN",)),
    ("COS_SECRET_ID", "COS_SECRET_KEY", ("COS_TOKEN",)),
    ("COS_SECRETID", "COS_SECRETKEY", ("COS_TOKEN",)),
    ("COS_KEY", "COS_SECRET", ("COS_TOKEN",)),
    ("SECRETID", "SECRETKEY", ()),
)
PROFILES = (Path("~/.tencentcloud/credentials"), Path("/etc/tencentcloud/credentials"))
#: Where a message goes on with what only a program can do.
IN_PYTHON = ", or pass credentials="
# Host (and port) of the metadata service.
METADATA = "metadata.tencentyun.com"


def default_chain(environ: Environ | None = None, *, metadata: str = METADATA) -> Credentials:
    """Return the credentials of an existing Tencent environment; blocks.

    In this order: environment variables by any of their names, ``~/.tencentcloud/credentials``,
    ``/etc/tencentcloud/credentials``, tccli's profile (``TCCLI_PROFILE`` or ``default``), the role
    of the CVM instance.

    A place that cannot be read, or has nothing for this program, is passed over.

    Raises:
        CredentialsError: There are none, the first ones found are incomplete, unusable or expired,
            or a role is to be assumed, which is not done here.
    """
    return search(environ, metadata=metadata)[1]


class _NothingHere(Exception):
    """A place has no credentials, for the reason given."""


@without_frames
def search(environ: Environ | None = None, *, metadata: str = METADATA) -> tuple[str, Credentials]:
    """Return where `default_chain` finds credentials, and the credentials."""
    environ = os.environ if environ is None else environ
    _refuse_role("the environment", {"TENCENTCLOUD_ROLE_ARN": environ.get("TENCENTCLOUD_ROLE_ARN")})
    for names in ENVIRONMENT:
        if found := _from_environment(environ, *names):
            return f"the environment: {names[0]} and {names[1]}", found
    reasons = ["the environment: TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY are not set"]
    tccli = Path(f"~/.tccli/{environ.get('TCCLI_PROFILE') or 'default'}.credential")
    files: list[tuple[Path, Callable[[Path, str], Credentials]]] = [
        *((profile, _from_profile) for profile in PROFILES),
        (tccli, partial(_from_tccli, metadata=metadata)),
    ]
    for place, read in files:
        path = place
        try:
            path = _expanded(place, environ.get("HOME"))
            return str(path), _from_file(path, read)
        except _NothingHere as reason:
            reasons.append(f"{path}: {reason}")
    try:
        return "the role of this CVM instance", cvm_role(metadata=metadata)
    except CredentialsError as problem:
        reasons.append(str(problem))
    raise CredentialsError(
        f"no credentials found: {'; '.join(reasons)}. Set one of them{IN_PYTHON}"
    )


def _expanded(path: Path, home: str | None) -> Path:
    """Return a path with the user's home in place of ``~``."""
    if path.parts[0] != "~":
        return path
    try:
        return Path(home or Path.home(), *path.parts[1:])
    except RuntimeError:
        raise _NothingHere("HOME is not set, and this user has no home directory") from None


def _refuse_role(place: object, settings: Mapping[str, object]) -> None:
    """Raise if a setting names a role to assume: without it, this would be another identity."""
    for name, value in settings.items():
        if value:
            raise CredentialsError(
                f"{place}: {name} names a role to assume, which is not done here; remove {name} "
                f"to sign with the keys as they are{IN_PYTHON}, a function that returns the role's "
                "Credentials (from AssumeRole of Tencent's STS)"
            )


def _from_environment(
    environ: Environ, id_name: str, key_name: str, token_names: tuple[str, ...]
) -> Credentials | None:
    secret_id, secret_key = environ.get(id_name), environ.get(key_name)
    if secret_id and secret_key:
        token_name = next((name for name in token_names if environ.get(name)), "")
        place = ", ".join(filter(None, (id_name, key_name, token_name)))
        return _checked(place, secret_id, secret_key, environ.get(token_name))
    if secret_id or secret_key:
        missing, present = (key_name, id_name) if secret_id else (id_name, key_name)
        raise CredentialsError(f"{missing} is missing in the environment, though {present} is set")
    return None


def _checked(place: object, secret_id: str, secret_key: str, token: str | None) -> Credentials:
    try:
        return Credentials(secret_id, secret_key, token or None)
    except CredentialsError as problem:
        raise CredentialsError(f"{place}: {problem}") from None


def _from_file(path: Path, read: Callable[[Path, str], Credentials]) -> Credentials:
    try:
        return read(path, path.read_text("utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        raise _NothingHere("there is no such file") from None
    except OSError as problem:
        raise _NothingHere(f"it cannot be read ({problem.strerror})") from None
    except UnicodeDecodeError as problem:
        raise CredentialsError(f"{path} cannot be read: {problem}") from None
    except KeyError as problem:
        fault = f"{problem.args[0]} is missing"
    except configparser.Error as problem:
        # Its message quotes the line, which may be a key.
        fault = f"not an INI file ({type(problem).__name__})"
    except (ValueError, AttributeError):
        fault = "not a JSON object"
    raise CredentialsError(f"{path}: {fault}")


def _from_profile(path: Path, text: str) -> Credentials:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    if "default" not in parser:
        raise _NothingHere("it has no section [default]")
    section = parser["default"]
    _refuse_role(path, {"role_arn": section.get("role_arn")})
    return _checked(path, section["secret_id"], section["secret_key"], section.get("token"))


def _from_tccli(path: Path, text: str, *, metadata: str) -> Credentials:
    profile = json.loads(text)
    _refuse_role(path, {name: profile.get(name) for name in ("role-arn", "role_arn")})
    if profile.get("type") == "cvm-role":
        return cvm_role(metadata=metadata)
    found = _checked(path, profile["secretId"], profile["secretKey"], profile.get("token"))
    return _until(path, found, profile.get("expiresAt"), profile.get("type"))


def _until(path: Path, found: Credentials, expires_at: Any, kind: object) -> Credentials:
    """Return the credentials of a login with their expiry; refuse those that have expired."""
    if expires_at is None:
        return found
    try:
        expired = time.time() >= float(expires_at)
    except (TypeError, ValueError):
        raise CredentialsError(f"{path}: expiresAt: expected Unix seconds") from None
    if expired:
        login = f"tccli {'sso' if kind == 'sso' else 'auth'} login --profile {path.stem}"
        raise CredentialsError(f"{path}: its credentials have expired; log in again: {login}")
    return attrs.evolve(found, expires_at=float(expires_at))


@without_frames
def cvm_role(role: str | None = None, *, metadata: str = METADATA) -> Credentials:
    """Return temporary credentials of a role of this CVM instance, by default the first; blocks.

    Source: https://www.tencentcloud.com/document/product/213/4934

    Raises:
        CredentialsError: There is no metadata service, or it returned no credentials.
    """
    where = "/latest/meta-data/cam/security-credentials/"
    try:
        role = role or _fetch(metadata, where).strip().splitlines()[0]
        response = json.loads(_fetch(metadata, where + role))
        if response["Code"] != "Success":
            raise CredentialsError(f"the CVM role {role} has no credentials: {response['Code']}")
        keys = [response[name] for name in ("TmpSecretId", "TmpSecretKey", "Token")]
        return Credentials(*keys, expires_at=float(response["ExpiredTime"]))
    except (OSError, http.client.HTTPException) as problem:
        reason = f"there is no CVM role here ({type(problem).__name__}: {problem})"
    except (ValueError, KeyError, TypeError, IndexError) as problem:
        reason = f"the CVM metadata service gave no credentials ({type(problem).__name__})"
    raise CredentialsError(reason)


def _fetch(host: str, path: str) -> str:
    # One hop inside the instance: no proxy, no TLS, and a response at once or never.
    with closing(http.client.HTTPConnection(host, timeout=1)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        if response.status != http.HTTPStatus.OK:
            raise http.client.HTTPException(f"status {response.status}")
        return response.read(65536).decode()
