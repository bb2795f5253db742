"""Tokens of callback URLs: which may call, and about which stream. Pure.

A token is 64 hexadecimal digits: the first half is a digest of the ``data_id`` by the secret, the
second half the signature of the first. So a forged one is known before a body is read, any process
with the secret can tell, and a URL that is seen in a log serves one stream and does not name it.

https://www.rfc-editor.org/rfc/rfc2104
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from urllib.parse import unquote

from ci_live_audit.errors import ConfigurationError

__all__ = ["Grant", "Tokens"]

#: Bytes that a secret should have; a shorter one could be found by trying.
SHORTEST = 16
EXPECTED = "secret: expected a text or bytes"
#: Bytes of each half of a token: https://www.rfc-editor.org/rfc/rfc2104#section-5
HALF = 16
TOKEN = re.compile(f"[0-9a-f]{{{4 * HALF}}}")
ANY_STREAM, ONE_STREAM, SIGNATURE = (
    f"ci_live_audit.callbacks.{purpose}\0".encode() for purpose in ("any", "data_id", "signature")
)


class _Key:
    """Makes digests with a secret, which cannot be read from it."""

    def __init__(self, secret: bytes) -> None:
        self._started = hmac.new(secret, digestmod="sha256")
        self.any_stream: bytes = self._digest(ANY_STREAM, b"")

    def stream(self, data_id: str) -> bytes:
        """Return the first half of a token."""
        # Without the white space that decoding leaves out.
        return self._digest(ONE_STREAM, data_id.strip().encode("utf-8", "surrogatepass"))

    def signature(self, stream: bytes) -> bytes:
        """Return the second half of a token."""
        return self._digest(SIGNATURE, stream)

    def _digest(self, purpose: bytes, message: bytes) -> bytes:
        digest = self._started.copy()
        digest.update(purpose + message)
        return digest.digest()[:HALF]


class Grant:
    """What a genuine token permits."""

    __slots__ = ("_key", "_stream")

    def __init__(self, key: _Key, stream: bytes) -> None:
        self._key = key
        self._stream = stream

    def covers(self, data_id: str | None) -> bool:
        """Return whether it permits callbacks with a ``data_id``, or with none."""
        for_any = hmac.compare_digest(self._stream, self._key.any_stream)
        for_one = hmac.compare_digest(self._stream, self._key.stream(data_id or ""))
        return for_any or for_one


class Tokens:
    """Makes tokens with the first of some secrets, and knows those made with any of them.

    Attributes:
        is_weak: Whether a secret is so short that it could be found by trying.

    Raises:
        ConfigurationError: A secret is empty, or no text and no bytes; it is not shown.
    """

    def __init__(self, secret: str | bytes | Sequence[str | bytes]) -> None:
        secrets = [secret] if isinstance(secret, str | bytes) else secret
        if not isinstance(secrets, list | tuple) or not secrets:
            found = "none" if secrets in ([], ()) else type(secrets).__name__
            raise ConfigurationError(f"{EXPECTED}, or a list of them; got {found}")
        plain = [_bytes(one) for one in secrets]
        self._keys = tuple(_Key(one) for one in plain)
        self.is_weak: bool = min(map(len, plain)) < SHORTEST

    def sign(self, data_id: str | None) -> str:
        """Return the token for a ``data_id``; for None, the one that is good for all streams."""
        key = self._keys[0]
        stream = key.any_stream if data_id is None else key.stream(data_id)
        return (stream + key.signature(stream)).hex()

    def grant(self, path: str) -> Grant | None:
        """Return what the token at the end of a path permits; None if it is not genuine."""
        token = unquote(path.partition("?")[0]).rstrip("/").rpartition("/")[2]
        if not TOKEN.fullmatch(token):
            return None
        both = bytes.fromhex(token)
        stream, signature = both[:HALF], both[HALF:]
        found: Grant | None = None
        for key in self._keys:  # all of them, so that the time does not tell which
            if hmac.compare_digest(key.signature(stream), signature):
                found = Grant(key, stream)
        return found


def _bytes(secret: str | bytes) -> bytes:
    if not isinstance(secret, str | bytes):
        raise ConfigurationError(f"{EXPECTED}; got {type(secret).__name__}")
    plain = secret.encode("utf-8", "surrogatepass") if isinstance(secret, str) else secret
    if not plain:
        raise ConfigurationError(f"{EXPECTED}, such as secrets.token_urlsafe(32); got an empty one")
    return plain
