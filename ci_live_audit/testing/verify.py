"""Verification of the signature of a request that arrived.

Computed from the request as it arrived, step by step as in
https://www.tencentcloud.com/document/product/436/7778, without the client's own signer.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl

import attrs

from ci_live_audit.credentials.values import Credentials
from ci_live_audit.testing.render import Refusal

__all__ = ["verify"]

UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~")


def verify(  # noqa: PLR0917 - the parts of a request, in its order
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    credentials: Credentials,
    now: float,
) -> Refusal | None:
    """Return None if the signature is valid, and otherwise the refusal.

    Args:
        method: HTTP method.
        path: Path as it arrived, decoded.
        query: Query string as it arrived.
        headers: Headers by lower-case name.
        credentials: The only credentials that are accepted.
        now: Unix seconds.
    """
    refusal: Refusal | None = None
    for params in _readings(query):
        refusal = _verify(method, path, params, headers, credentials, now)
        if refusal is None:
            break
    return refusal


def _verify(  # noqa: PLR0917 - the parts of a request, in its order
    method: str,
    path: str,
    params: Mapping[str, str],
    headers: Mapping[str, str],
    credentials: Credentials,
    now: float,
) -> Refusal | None:
    fields = _signature(params, headers)
    if fields is None:
        return Refusal(401, "MissingAuthorization", "The Authorization header is missing.")
    auth = _Authorization.parse(fields)
    if auth is None:
        return Refusal(401, "InvalidAuthorization", "The Authorization header is malformed.")
    if auth.secret_id != credentials.secret_id:
        return Refusal(401, "SecretidNotExist", "The SecretId does not exist.")
    if now < auth.start:
        return Refusal(403, "RequestTimeTooSkewed", "The signature is not valid yet.")
    if now > auth.end:
        return Refusal(401, "SignatureExpired", "The signature has expired.")
    if _token({**params, **headers}) != credentials.token:
        return Refusal(403, "AccessDenied", "The security token is not that of the SecretId.")

    arrived_params = _encoded(params)
    more: dict[str, str] = {}
    for host in _spellings(headers.get("host", "")):
        arrived = _encoded({**headers, "host": host})
        try:
            http_string = (
                f"{method.lower()}\n{path}\n"
                + "&".join(f"{name}={arrived_params[name]}" for name in auth.param_names)
                + "\n"
                + "&".join(f"{name}={arrived[name]}" for name in auth.header_names)
                + "\n"
            )
        except KeyError as missing:
            return Refusal(403, "SignatureDoesNotMatch", f"{missing} is signed, but missing.")
        digest = hashlib.sha1(http_string.encode()).hexdigest()  # noqa: S324 - the service's choice
        string_to_sign = f"sha1\n{auth.time}\n{digest}\n"
        key = _hmac_sha1(credentials.secret_key, auth.time)
        if hmac.compare_digest(_hmac_sha1(key, string_to_sign).encode(), auth.signature.encode()):
            return None
        more = {"StringToSign": string_to_sign, "FormatString": http_string}
    return Refusal(403, "SignatureDoesNotMatch", "The signature does not match.", more)


def _signature(params: Mapping[str, str], headers: Mapping[str, str]) -> Mapping[str, str] | None:
    """Return the fields of the signature, from the header or from one of two forms of URLs."""
    if "authorization" in headers:
        return _fields(headers["authorization"])
    if any(name.startswith("q-") for name in params):
        return params
    return _fields(params["sign"]) if "sign" in params else None


def _fields(text: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for part in text.split("&"):
        name, _, value = part.partition("=")
        fields[name] = value
    return fields


def _token(fields: Mapping[str, str]) -> str | None:
    return fields.get("x-ci-security-token", fields.get("x-cos-security-token"))


@attrs.frozen
class _Authorization:
    secret_id: str
    time: str
    start: int
    end: int
    header_names: list[str]
    param_names: list[str]
    signature: str

    @classmethod
    def parse(cls, fields: Mapping[str, str]) -> _Authorization | None:
        try:
            header_names = [name for name in fields["q-header-list"].split(";") if name]
            param_names = [name for name in fields["q-url-param-list"].split(";") if name]
            start, end = (int(second) for second in fields["q-key-time"].split(";"))
            well_formed = (
                fields["q-sign-algorithm"] == "sha1"
                and fields["q-sign-time"] == fields["q-key-time"]
                and header_names == sorted(header_names)
                and param_names == sorted(param_names)
            )
            auth = cls(
                fields["q-ak"],
                fields["q-key-time"],
                start,
                end,
                header_names,
                param_names,
                fields["q-signature"],
            )
        except (KeyError, ValueError):
            return None
        return auth if well_formed else None


def _spellings(host: str) -> Iterable[str]:
    """Return the host in small letters and as it arrived, each without and with its port.

    The vendor's SDKs sign it without its port, and URLs have it in small letters.
    """
    names = [host.lower(), host]
    return dict.fromkeys(
        spelling for name in names for spelling in (re.sub(r":\d*$", "", name), name)
    )


def _readings(query: str) -> Iterable[dict[str, str]]:
    """Return the parameters of a query: a plus is a plus to URLs, and a blank to forms."""
    return (
        dict(parse_qsl(reading, keep_blank_values=True))
        for reading in dict.fromkeys([query.replace("+", "%2B"), query])
    )


def _encoded(fields: Mapping[str, str]) -> dict[str, str]:
    return {_encode(name).lower(): _encode(value) for name, value in fields.items()}


def _hmac_sha1(key: str, text: str) -> str:
    return hmac.new(key.encode(), text.encode(), "sha1").hexdigest()


def _encode(text: str) -> str:
    return "".join(chr(byte) if byte in UNRESERVED else f"%{byte:02X}" for byte in text.encode())
