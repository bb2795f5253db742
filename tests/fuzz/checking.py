"""The check that any bytes of a response must pass, for the fuzzer and the replay of its files.

A file is a body, or headers, an empty line and a body, as in HTTP.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import xmltodict

from ci_live_audit import decode
from ci_live_audit.errors import ConfigurationError, LiveAuditError, ServiceError
from ci_live_audit.models import AuditJob, CancelledJob, SubmittedJob
from ci_live_audit.wire import documents, requests

__all__ = ["check", "split"]

Result = AuditJob | SubmittedJob | CancelledJob


def check(data: bytes) -> None:
    """Read bytes in every way; raise for all but a usable result or an error of the library."""
    headers, body = split(data)
    whole = _outcome(decode.job, body)
    for size in (1 + len(body) % 61, 8192):
        with _in_pieces(size):
            assert _outcome(decode.job, body) == whole
    _outcome(decode.submitted, body)
    _outcome(decode.cancelled, body)
    _outcome(lambda sent: decode.cancelled(sent, job_id="j"), body)
    for status in (302, 404, 429, 500):
        _check_refusal(decode.error(status, headers, body))
    _check_rendering(body)


def split(data: bytes) -> tuple[dict[str, str], bytes]:
    """Return the headers by lower-case name, and the body."""
    head, empty, body = data.partition(b"\r\n\r\n")
    if not empty:
        return {}, data
    lines = [line.partition(b":") for line in head.split(b"\r\n")]
    return {_text(name).lower(): _text(value).strip() for name, _, value in lines}, body


def _outcome(read: Callable[[bytes], Result], body: bytes) -> Result | None:
    """Return a result that becomes JSON, pickles and hashes; None if there was an error."""
    try:
        result = read(body)
    except LiveAuditError as error:
        _check_error(error)
        return None
    plain = result.to_dict()
    sent = json.dumps(plain, allow_nan=False, ensure_ascii=False).encode()
    assert json.loads(sent) == plain
    assert pickle.loads(pickle.dumps(result)) == result
    assert isinstance(result.job_id, str)
    hash(result)
    return result


def _check_error(error: LiveAuditError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert len(str(error)) < 2000


def _check_refusal(error: ServiceError) -> None:
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert error.retry_after is None or error.retry_after >= 0
    assert all(isinstance(text, str) for text in (error.code, error.message))


def _check_rendering(body: bytes) -> None:
    """Check that a text that is accepted arrives unchanged."""
    text = body[:200].decode("utf-8", "replace")
    extra = {"Input": {"Note": text}, "Conf": {"A": [text, {"B": text}]}}
    try:
        request = requests.submit("rtmp://host/app", extra=extra)
    except ConfigurationError:
        return
    options: Any = {"strip_whitespace": False}
    sent = xmltodict.parse(request.body, **options)["Request"]
    assert set(sent) == {"Input", "Conf", "Type"}, sent
    if text:
        assert sent["Input"] == {"Url": "rtmp://host/app", "Note": text}, sent
        assert sent["Conf"] == {"A": [text, {"B": text}]}, sent


@contextmanager
def _in_pieces(size: int) -> Iterator[None]:
    """Treat every body as large, and read it in slices of ``size`` bytes."""
    kept = documents.LARGE_BODY, documents.SLICE
    documents.LARGE_BODY, documents.SLICE = -1, size
    try:
        yield
    finally:
        documents.LARGE_BODY, documents.SLICE = kept


def _text(data: bytes) -> str:
    return data.decode("latin-1")
