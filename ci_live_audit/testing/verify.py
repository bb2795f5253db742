"""Whether a request that arrived is signed as it should be.

Worked out again from what arrived, step by step as in
https://www.tencentcloud.com/document/product/436/7778, and without the client's own signer.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import parse_qsl

import attrs

from ci_live_audit.credentials import Credentials

__all__ = ["Refusal", "verify"]

UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~")


@attrs.frozen
class Refusal:
    """An error of the service: HTTP status, code, message, further nodes of its document."""

    status: int
    code: str
    message: str
    more: Mapping[str, str] = {}


def verify(
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    credentials: Credentials,
    now: float,
) -> Refusal | None:
    """None if the signature is right.

    Args:
        method: HTTP method.
        path: Path as it arrived, decoded.
        query: Query string as it arrived.
        headers: Headers by lower-case name.
        credentials: The only ones that are accepted.
        now: Unix seconds.
    """
    if "authorization" not in headers:
        return Refusal(401, "MissingAuthorization", "The Authorization header is missing.")
    fields = dict(part.partition("=")[::2] for part in headers["authorization"].split("&"))
    try:
        start, end = (int(second) for second in fields["q-key-time"].split(";"))
        secret_id, signature = fields["q-ak"], fields["q-signature"]
        header_names = list(filter(None, fields["q-header-list"].split(";")))
        param_names = list(filter(None, fields["q-url-param-list"].split(";")))
        malformed = fields["q-sign-algorithm"] != "sha1"
        malformed |= fields["q-sign-time"] != fields["q-key-time"]
        malformed |= header_names != sorted(header_names) or param_names != sorted(param_names)
    except (KeyError, ValueError):
        malformed = True
    if malformed:
        return Refusal(401, "InvalidAuthorization", "The Authorization header is malformed.")
    if secret_id != credentials.secret_id:
        return Refusal(401, "SecretidNotExist", "The SecretId does not exist.")
    if now < start:
        return Refusal(403, "RequestTimeTooSkewed", "The signature is not valid yet.")
    if now > end:
        return Refusal(401, "SignatureExpired", "The signature has expired.")
    token = headers.get("x-ci-security-token", headers.get("x-cos-security-token"))
    if token != credentials.token:
        return Refusal(403, "AccessDenied", "The security token is not that of the SecretId.")

    params = {_encode(name).lower(): _encode(value) for name, value in parse_qsl(query, True)}
    arrived = {_encode(name).lower(): _encode(value) for name, value in headers.items()}
    if not set(header_names) <= arrived.keys() or not set(param_names) <= params.keys():
        return Refusal(403, "SignatureDoesNotMatch", "A signed header or parameter is missing.")
    candidates = [arrived]
    if ":" in headers.get("host", ""):  # SDKs of the vendor sign the host without its port
        candidates.append({**arrived, "host": _encode(headers["host"].rpartition(":")[0])})
    for candidate in candidates:
        http_string = "\n".join(
            [
                method.lower(),
                path,
                "&".join(f"{name}={params[name]}" for name in param_names),
                "&".join(f"{name}={candidate[name]}" for name in header_names),
                "",
            ]
        )
        digest = hashlib.sha1(http_string.encode()).hexdigest()  # noqa: S324 - the service's choice
        string_to_sign = f"sha1\n{fields['q-sign-time']}\n{digest}\n"
        key = _hmac_sha1(credentials.secret_key, fields["q-key-time"])
        if hmac.compare_digest(_hmac_sha1(key, string_to_sign), signature):
            return None
    more = {"StringToSign": string_to_sign, "FormatString": http_string}
    return Refusal(403, "SignatureDoesNotMatch", "The signature does not match.", more)


def _hmac_sha1(key: str, text: str) -> str:
    return hmac.new(key.encode(), text.encode(), "sha1").hexdigest()


def _encode(text: str) -> str:
    return "".join(chr(byte) if byte in UNRESERVED else f"%{byte:02X}" for byte in text.encode())
