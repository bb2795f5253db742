"""The health of the service, as the polls of a run show it."""

from __future__ import annotations

import logging
import math

import pytest

from ci_live_audit import (
    AccessDenied,
    ConfigurationError,
    CredentialsError,
    DecodeError,
    InvalidArgument,
    InvalidInput,
    JobNotFound,
    LiveAuditError,
    RequestTimeout,
    ServiceError,
    ServiceUnavailable,
    Throttled,
    TransportError,
)
from ci_live_audit.following.health import Health

PASSING = [
    TransportError("reset"),
    RequestTimeout("no response"),
    Throttled(status=429, code="SlowDown"),
    ServiceUnavailable(status=503, code="ServiceUnavailable"),
    DecodeError("cut off"),
    InvalidArgument(status=404),  # a page of a proxy
]
OF_ALL = [
    InvalidArgument(status=404, code="NoSuchBucket"),
    InvalidArgument(status=400, code="InvalidHost"),
    InvalidArgument(status=411, code="MissingContentLength"),
    ServiceError(status=301, code="PermanentRedirect"),
    ServiceError(status=403, code="QueuePaused"),
    ServiceError(status=451, code="UnavailableForLegalReasons"),
    ServiceError(status=501, code="NotImplemented"),
    AccessDenied(status=403, code="AccessDenied"),
    CredentialsError("none found"),
]
OF_ONE = [
    JobNotFound(status=404, code="AuditingJobNotFound"),
    InvalidArgument(status=400, code="InvalidArgument"),
    DecodeError("no number", path="JobsDetail.Result"),
    InvalidInput("job_id: not an id"),
]


BAD_CERTIFICATE = TransportError("CERTIFICATE_VERIFY_FAILED", sent=False)
BAD_CERTIFICATE.transient = False


def name(error: LiveAuditError) -> str:
    """Return a name for a test's id."""
    return getattr(error, "code", "") or type(error).__name__


def failing(error: LiveAuditError, times: int = 10) -> Health:
    """Return the health after failed polls at 0, 1, 2, … of a run of 100 jobs."""
    health = Health()
    for time in range(times):
        health.record_error(error, time, 100)
    return health


@pytest.mark.parametrize("error", PASSING, ids=name)
def test_ten_failures_in_a_row_are_an_outage(error: LiveAuditError) -> None:
    """It counts from the first of them; a success ends it."""
    health = failing(error, 9)
    assert (health.is_out, health.outage(9), health.next_probe) == (False, None, -math.inf)
    health.record_error(error, 9, 100)
    assert (health.is_out, health.outage(20), health.error) == (True, 20, error)
    health.record_success(21)
    assert (health.is_out, health.outage(21), health.error) == (False, None, None)
    assert health.next_probe == -math.inf


@pytest.mark.parametrize("error", [*OF_ALL[:-1], *OF_ONE[:-1]], ids=name)
def test_a_refusal_is_a_response(error: LiveAuditError) -> None:
    """The service is there, whatever it says."""
    health = failing(TransportError("reset"))
    health.record_error(error, 10, 100)
    assert not health.is_out


def test_an_impossible_id_is_no_response() -> None:
    """What never left this machine says nothing about the service."""
    health = failing(TransportError("reset"))
    health.record_error(InvalidInput("job_id: not an id"), 10, 100)
    assert health.is_out


def test_a_few_jobs_are_enough_for_an_outage() -> None:
    """In a run of two jobs two failures in a row are one, in a run of one job the first."""
    health = Health()
    health.record_error(TransportError("reset"), 0, 2)
    assert not health.is_out
    health.record_error(TransportError("reset"), 1, 2)
    assert health.is_out
    health = Health()
    health.record_error(TransportError("reset"), 0, 1)
    assert health.is_out


def test_pauses_between_probes_double_up_to_ten_seconds() -> None:
    """They count from the failure of the probe before; the longest, from when it was sent."""
    health = failing(TransportError("reset"))
    pauses: list[float] = []
    now = 9.0
    for _ in range(6):
        pauses.append(health.next_probe - now)
        now = health.next_probe
        health.record_probe(now)
        now += 0.5
        health.record_error(TransportError("reset"), now, 100)
    assert pauses == [1, 2, 4, 8, 9.5, 9.5]


def test_a_probe_that_hangs_does_not_hold_up_the_next() -> None:
    """Without a result of the last probe, the next is sent after ten seconds."""
    health = failing(TransportError("reset"))
    health.record_probe(10)
    assert health.next_probe == 20


def test_polls_from_before_the_outage_hold_up_no_probe() -> None:
    """Failures of other polls neither lengthen the pause nor put the probe off."""
    health = failing(TransportError("reset"))
    for _ in range(100):
        health.record_error(TransportError("reset"), 9.5, 100)
    assert health.next_probe == 10


def test_the_log_tells_of_an_outage_at_once_and_each_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It tells of the beginning, of each minute with the last error, and of the end."""
    caplog.set_level(logging.WARNING, "ci_live_audit")
    health = failing(TransportError("reset"))
    for time in range(10, 200):
        health.record_error(TransportError("refused"), time, 100)
    health.record_success(200)
    health.record_success(201)
    assert caplog.messages == [
        "nothing succeeds any more: reset; jobs stay open, and one probe at a time is sent",
        "nothing has succeeded for 69 s: refused",
        "nothing has succeeded for 129 s: refused",
        "nothing has succeeded for 189 s: refused",
        "the service responds again after 200 s",
    ]


@pytest.mark.parametrize("error", [*OF_ALL, BAD_CERTIFICATE], ids=name)
def test_five_refusals_in_a_row_are_a_fault_of_all(error: LiveAuditError) -> None:
    """What lies in the account or the bucket ends a run, though not with its first job."""
    health = Health()
    for _ in range(4):
        health.record_error(error, 0, 100)
        assert not health.is_fatal(error)
    health.record_error(error, 0, 100)
    assert health.is_fatal(error)


@pytest.mark.parametrize("error", OF_ALL[:-1], ids=name)
def test_refusals_between_successes_are_no_fault_of_all(error: LiveAuditError) -> None:
    """A key may have rights on some jobs only."""
    health = Health()
    for _ in range(100):
        health.record_error(error, 0, 100)
        assert not health.is_fatal(error)
        health.record_success(0)


@pytest.mark.parametrize("error", OF_ONE, ids=name)
def test_a_fault_of_one_job_is_none_of_another(error: LiveAuditError) -> None:
    """A thousand unknown or impossible ids in a row end no run, and break a row of refusals."""
    health = Health()
    for _ in range(1000):
        health.record_error(error, 0, 100)
        assert not health.is_fatal(error)
    refusal = OF_ALL[0]
    for _ in range(4):
        health.record_error(refusal, 0, 100)
    health.record_error(error, 0, 100)
    health.record_error(refusal, 0, 100)
    assert not health.is_fatal(refusal)


def test_a_fault_of_the_client_is_fatal_at_once() -> None:
    """A closed client, or one on another loop, cannot poll any job."""
    error = ConfigurationError("this client is closed; make a new one")
    health = Health()
    health.record_error(error, 0, 100)
    assert health.is_fatal(error)


def test_credentials_that_were_there_may_come_back() -> None:
    """Missing credentials are an outage after a success, and a fault of all before."""
    health = Health()
    assert not health.may_pass(CredentialsError("none"))
    health.record_success(0)
    assert health.may_pass(CredentialsError("none"))
    for _ in range(20):
        health.record_error(CredentialsError("none"), 1, 100)
    assert health.is_out
    assert not health.is_fatal(CredentialsError("none"))
