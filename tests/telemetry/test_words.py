"""The words of attributes are few, whatever comes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ci_live_audit import (
    Attempt,
    AudioFinding,
    AudioSection,
    AuditJob,
    DecodeError,
    LiveAuditError,
    ServiceError,
    Snapshot,
    SnapshotFinding,
    Throttled,
    TransportError,
    Verdict,
)
from ci_live_audit.telemetry import words
from ci_live_audit.telemetry.words import AttributeSets

NOON = datetime(2026, 8, 7, 12, tzinfo=UTC)


def test_sets_are_made_once_and_are_bounded() -> None:
    """The last one of the allowed number stands for all others, and has words for its words."""
    sets = AttributeSets(3, "operation", "http.response.status_code")
    first = sets.of("query", 200)
    assert first == {"operation": "query", "http.response.status_code": 200}
    assert sets.of("query", 200) is first
    assert sets.of("query", None) == {"operation": "query"}
    others = [sets.of("cancel", status) for status in range(100, 900)]
    assert others == [{"operation": "_OTHER"}] * 800
    assert sets.of("query", 200) is first


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (200, None, (200, None)),
        (429, Throttled(status=429), (429, "429")),
        (200, Throttled(status=200), (200, "Throttled")),
        (200, DecodeError("cut off"), (200, "DecodeError")),
        (302, ServiceError(status=302), (302, "ServiceError")),
        (None, TransportError("lost"), (None, "TransportError")),
        (499, ServiceError(status=499), (None, "_OTHER")),
        (299, None, (None, None)),
        (None, type("Mine", (LiveAuditError,), {})(), (None, "_OTHER")),
    ],
)
def test_status_and_error_of_an_attempt(
    status: int | None, error: LiveAuditError | None, expected: tuple[Any, Any]
) -> None:
    """The error is the status if that is one, and otherwise its class, as far as they are known."""
    attempt = Attempt(operation="query", number=1, status=status, error=error)
    assert (words.status_of(attempt), words.error_of(attempt)) == expected


@pytest.mark.parametrize(
    ("endpoint", "host", "port", "short"),
    [
        ("https://room-125000.ci.ap-beijing.myqcloud.com", ..., 443, "ci.ap-beijing.myqcloud.com"),
        ("http://127.0.0.1:8080", "127.0.0.1", 8080, "127.0.0.1"),
        ("http://[::1]", "::1", 80, "::1"),
        ("https://proxy-1250000000", "proxy-1250000000", 443, "proxy-1250000000"),
        ("", None, None, None),
    ],
)
def test_a_server_is_told_with_its_bucket_and_without(
    endpoint: str, host: Any, port: int | None, short: str | None
) -> None:
    """The bucket is the first part of a host, before others."""
    host = endpoint.removeprefix("https://") if host is ... else host
    assert words.server(endpoint) == (host, port, short)


def finding(time: int | None, received: datetime | None, verdict: Any = None) -> SnapshotFinding:
    snapshot = Snapshot(snapshot_time=time, result=verdict)
    job = AuditJob(job_id="a", state="Auditing", received_at=received)  # type: ignore[arg-type]
    return SnapshotFinding(job_id="a", key="k", job=job, snapshot=snapshot)


def test_the_delay_of_a_finding() -> None:
    """It is told of snapshots whose time is known, and which were not taken in the future."""
    taken = round(NOON.timestamp() * 1000)
    assert words.delay(finding(taken, NOON + timedelta(seconds=2.5))) == 2.5
    assert words.delay(finding(taken, NOON)) == 0
    assert words.delay(finding(taken, NOON - timedelta(seconds=1))) is None
    assert words.delay(finding(taken, None)) is None
    for no_time in (None, 0, 5000, 2**80):
        assert words.delay(finding(no_time, NOON)) is None
    section = AudioSection(offset_time=taken)
    sound = AudioFinding(job_id="a", key="k", job=finding(1, NOON).job, audio_section=section)
    assert words.delay(sound) is None


def test_the_verdict_of_a_finding() -> None:
    """A number that no document knows is one of the others."""
    verdicts = [None, *Verdict, Verdict(7)]
    told = [words.of_finding(finding(1, NOON, verdict)) for verdict in verdicts]
    assert [kind for kind, _ in told] == ["snapshot"] * 5
    assert [word for _, word in told] == [None, "normal", "sensitive", "suspected", "_OTHER"]
