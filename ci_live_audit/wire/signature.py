"""The ``q-sign-*`` authorization of a request, as pure functions.

Source: https://www.tencentcloud.com/document/product/436/7778
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import quote

from ci_live_audit.credentials.values import Credentials, Secret
from ci_live_audit.wire.requests import Request

__all__ = ["authorization", "sign"]

# Seconds. A request is signed as it leaves, so its signature is short-lived: a minute for clocks
# that run ahead of the service's, ten for clocks behind it and for the transfer.
BEFORE = 60
AFTER = 600


def sign(request: Request, host: str, credentials: Credentials, now: float) -> dict[str, str]:
    """Return the headers with which a request is sent, the authorization included.

    ``host`` has the port if the URL has one; ``now`` is Unix seconds, by the service's clock.
    """
    headers = {"host": host, **request.headers}
    if credentials.token is not None:
        headers["x-ci-security-token"] = Secret(credentials.token)
    key_time = f"{int(now) - BEFORE};{int(now) + AFTER}"
    # All of these are signed, so there is none among them that a proxy may rewrite.
    headers["authorization"] = authorization(
        request.method, request.path, {}, headers, credentials, key_time
    )
    return headers


def authorization(  # noqa: PLR0917 - the parts of a request, in its order
    method: str,
    path: str,
    params: Mapping[str, str],
    headers: Mapping[str, str],
    credentials: Credentials,
    key_time: str,
) -> str:
    """Return the value of the ``Authorization`` header.

    Nothing is percent-encoded yet; ``key_time`` is ``"<start>;<end>"`` in Unix seconds.
    """
    key = sign_key(credentials, key_time)
    text = string_to_sign(method, path, params, headers, key_time)
    return Secret(
        f"q-sign-algorithm=sha1&q-ak={credentials.secret_id}"
        f"&q-sign-time={key_time}&q-key-time={key_time}"
        f"&q-header-list={_names(headers)}&q-url-param-list={_names(params)}"
        f"&q-signature={_hmac(key, text)}"
    )


def sign_key(credentials: Credentials, key_time: str) -> str:
    """Return the key that signs everything within ``key_time``."""
    return Secret(_hmac(credentials.secret_key, key_time))


def string_to_sign(
    method: str, path: str, params: Mapping[str, str], headers: Mapping[str, str], key_time: str
) -> str:
    """Return the text whose HMAC-SHA1 under the sign key is the signature of a request."""
    # It contains the token.
    http_string = Secret(f"{method.lower()}\n{path}\n{_pairs(params)}\n{_pairs(headers)}\n")
    digest = hashlib.sha1(http_string.encode(), usedforsecurity=False).hexdigest()
    return f"sha1\n{key_time}\n{digest}\n"


def _hmac(key: str, text: str) -> str:
    return hmac.new(key.encode(), text.encode(), hashlib.sha1).hexdigest()


def _names(fields: Mapping[str, str]) -> str:
    return ";".join(sorted(_encode(name).lower() for name in fields))


def _pairs(fields: Mapping[str, str]) -> str:
    pairs = sorted(
        (_encode(name).lower(), Secret(_encode(value))) for name, value in fields.items()
    )
    return Secret("&".join(f"{name}={value}" for name, value in pairs))


def _encode(text: str) -> str:
    return quote(text, safe="-_.~")
