"""The words that attributes of metrics are made of, so few that the series stay few. Pure.

Whatever the service says, and whatever a call is about, a word is one that is listed here or
``_OTHER``. https://opentelemetry.io/docs/specs/semconv/http/http-metrics/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from ci_live_audit import errors
from ci_live_audit.following.finding import (
    AudioFinding,
    Finding,
    SnapshotFinding,
    StateChange,
    VerdictChange,
    WatchFailed,
)
from ci_live_audit.models import Verdict
from ci_live_audit.retry import Attempt

__all__ = [
    "OTHER",
    "RESULTS",
    "RUNS",
    "SOURCES",
    "AttributeSets",
    "delay",
    "error_of",
    "error_type",
    "known",
    "of_finding",
    "operation",
    "request",
    "server",
    "status_of",
]

OTHER: Final = "_OTHER"
Value = str | int

#: Method and template of the path of each operation.
REQUESTS = {
    "query": ("GET", "/video/auditing/{job_id}"),
    "cancel": ("POST", "/video/cancel_auditing/{job_id}"),
    "submit": ("POST", "/video/auditing"),
}
STATUSES = frozenset(
    [200, 301, 302, 307, 400, 401, 403, 404, 405, 407, 408, 409, 413, 429, 500, 501, 502, 503, 504]
)
ERRORS = frozenset([*errors.__all__, "CancelledError"])
KINDS: dict[type, str] = {
    SnapshotFinding: "snapshot",
    AudioFinding: "audio",
    StateChange: "state",
    VerdictChange: "verdict",
    WatchFailed: "failed",
}
VERDICTS = {one.value: one.name.lower() for one in Verdict}
RUNS = frozenset(["watch", "as_completed", "wait", "moderate"])
RESULTS = frozenset(["taken", "duplicate", "refused", "unreadable", "probe", "busy"])
SOURCES = {"poll": "query", "callback": "callback"}

#: Attributes that are no words.
NUMBERS = {"http.response.status_code", "server.port"}
#: The name of a bucket, the first part of a host; it ends with the APPID of an account.
BUCKET = re.compile(r"^[a-z0-9-]+-[0-9]{5,12}\.(?=.)")


class AttributeSets:
    """The sets of attributes of one instrument.

    Each is made once. There are at most ``most``: what would be one more has ``_OTHER`` for words.
    """

    def __init__(self, most: int, *names: str) -> None:
        self._most = most
        self._names = names
        self._sets: dict[tuple[Value | None, ...], Mapping[str, Value]] = {}
        self._rest: Mapping[str, Value] = dict.fromkeys(
            (name for name in names if name not in NUMBERS), OTHER
        )

    def of(self, *values: Value | None) -> Mapping[str, Value]:
        """Return the attributes with these values, in the order of the names; None has none."""
        found = self._sets.get(values)
        if found is None:
            if len(self._sets) >= self._most - 1:
                return self._rest
            named = zip(self._names, values, strict=True)
            found = {name: value for name, value in named if value is not None}
            self._sets[values] = found
        return found


def known(word: str, words: frozenset[str]) -> str:
    """Return a word if it is one of these."""
    return word if word in words else OTHER


def operation(name: str) -> str:
    """Return the word for an operation."""
    return name if name in REQUESTS else OTHER


def request(name: str) -> tuple[str, str]:
    """Return the method and the template of the path of an operation."""
    return REQUESTS.get(name, (OTHER, OTHER))


def error_type(error: BaseException | None) -> str | None:
    """Return the word for an error; None for none."""
    return None if error is None else known(type(error).__name__, ERRORS)


def status_of(attempt: Attempt) -> int | None:
    """Return the HTTP status of an attempt if it is a listed one."""
    return attempt.status if attempt.status in STATUSES else None


def error_of(attempt: Attempt) -> str | None:
    """Return the word for the error of an attempt, which is the status if that is an error."""
    if attempt.error is None or attempt.status is None or attempt.status < 400:
        return error_type(attempt.error)
    return str(attempt.status) if attempt.status in STATUSES else OTHER


@lru_cache(maxsize=32)
def server(endpoint: str) -> tuple[str | None, int | None, str | None]:
    """Return the host and the port of an endpoint, and its host without the bucket."""
    parts = urlsplit(endpoint)
    if parts.hostname is None:
        return None, None, None
    port = parts.port or (80 if parts.scheme == "http" else 443)
    return parts.hostname, port, BUCKET.sub("", parts.hostname)


def of_finding(finding: Finding) -> tuple[str, str | None]:
    """Return the words for the kind and the verdict of a finding."""
    verdict = finding.verdict
    word = None if verdict is None else VERDICTS.get(verdict.value, OTHER)
    return KINDS.get(type(finding), OTHER), word


def delay(finding: Finding) -> float | None:
    """Return the seconds from a snapshot to the answer that showed it, if both times are known."""
    if not isinstance(finding, SnapshotFinding) or finding.at is None:
        return None
    received = finding.job.received_at
    if received is None or received < finding.at:
        return None
    return (received - finding.at) / timedelta(seconds=1)
