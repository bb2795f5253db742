"""What holds for any bytes that come as an answer; the fuzzer and the replay of its files share it.

A file is a body, or a few headers, an empty line and a body, as HTTP has them.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import xmltodict

from ci_live_audit import decode
from ci_live_audit.errors import ConfigurationError, LiveAuditError, ServiceError
from ci_live_audit.models import AuditJob, CancelledJob, SubmittedJob
from ci_live_audit.wire import documents, requests

__all__ = ["check", "split"]

Answer = AuditJob | SubmittedJob | CancelledJob


def check(data: bytes) -> None:
    """Read bytes in every way; anything but a good result or an error of the library raises."""
    headers, body = split(data)
    whole = _outcome(decode.job, body)
    for size in (1 + len(body) % 61, 8192):
        with _in_pieces(size):
            pieces = _outcome(decode.job, body)
        assert _comparable(pieces) == _comparable(whole), (pieces, whole)
    _outcome(decode.submitted, body)
    _outcome(decode.cancelled, body)
    _outcome(lambda sent: decode.cancelled(sent, job_id="j"), body)
    for status in (302, 404, 429, 500):
        _check_refusal(decode.error(status, headers, body))
    _check_rendering(body)


def split(data: bytes) -> tuple[dict[str, str], bytes]:
    """Headers by lower-case name, and the body."""
    head, empty, body = data.partition(b"\r\n\r\n")
    if not empty:
        return {}, data
    lines = [line.partition(b":") for line in head.split(b"\r\n")]
    return {_text(name).lower(): _text(value).strip() for name, _, value in lines}, body


def _outcome(read: Callable[[bytes], Answer], body: bytes) -> Answer | None:
    """A result that can be used for all that results are for; None if there was an error."""
    try:
        answer = read(body)
    except LiveAuditError as error:
        _check_error(error)
        return None
    plain = answer.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert pickle.loads(pickle.dumps(answer)) == answer
    assert isinstance(answer.job_id, str)
    hash(answer)
    return answer


def _check_error(error: LiveAuditError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert len(str(error)) < 2000


def _check_refusal(error: ServiceError) -> None:
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert error.retry_after is None or error.retry_after >= 0
    assert all(isinstance(text, str) for text in (error.code, error.message))


def _check_rendering(body: bytes) -> None:
    """A text that is accepted arrives as the text that it was."""
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
    """Every body counts as large and is read in pieces of so many bytes."""
    kept = documents.LARGE_BODY, documents.SLICE
    documents.LARGE_BODY, documents.SLICE = -1, size
    try:
        yield
    finally:
        documents.LARGE_BODY, documents.SLICE = kept


def _comparable(answer: Answer | None) -> Any:
    """Plain values but for text between elements: in a large body that has no place."""
    return answer and _without_text(answer.to_dict())


def _without_text(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_text(item) for item in value]
    if isinstance(value, Mapping):
        kept = {name: _without_text(item) for name, item in value.items() if "#text" not in name}
        return {name: item for name, item in kept.items() if item != {}}
    return value


def _text(data: bytes) -> str:
    return data.decode("latin-1")
