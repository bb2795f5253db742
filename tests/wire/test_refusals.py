"""What a response means is decided in one place, and so is what another attempt can change."""

from __future__ import annotations

import pytest

from ci_live_audit import (
    AccessDenied,
    DecodeError,
    InvalidArgument,
    JobNotFound,
    LiveAuditError,
    RequestTimeout,
    ServiceError,
    ServiceUnavailable,
    Throttled,
    TransportError,
)
from ci_live_audit.wire.refusals import Remedy, failure, is_stale, remedy
from ci_live_audit.wire.responses import Response


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_a_complete_success_is_no_failure(status: int) -> None:
    """Its body is for the caller to read."""
    assert failure(Response(status=status, body=b"<html>")) is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, ServiceError),
        (400, InvalidArgument),
        (401, AccessDenied),
        (403, AccessDenied),
        (404, InvalidArgument),
        (429, Throttled),
        (500, ServiceUnavailable),
        (503, ServiceUnavailable),
    ],
)
def test_a_status_alone_is_a_failure(status: int, kind: type[ServiceError]) -> None:
    """Without a document, the status decides the class."""
    found = failure(Response(status=status))
    assert type(found) is kind


@pytest.mark.parametrize("status", [0, 200, 404])
def test_an_incomplete_response_is_its_error(status: int) -> None:
    """If the body is missing, the error says why, whatever the head promised."""
    error = TransportError("cut")
    assert failure(Response(status=status, error=error)) is error


@pytest.mark.parametrize(("status", "kind"), [(429, Throttled), (503, ServiceUnavailable)])
def test_some_statuses_need_no_body(status: int, kind: type[ServiceError]) -> None:
    """A refusal to serve now is known from its head; what cut the body off is its cause."""
    error = TransportError("cut")
    found = failure(Response(status=status, error=error))
    assert type(found) is kind
    assert found.__cause__ is error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TransportError("stale", reused=True), Remedy.NEW_CONNECTION),
        (TransportError("reset"), None),
        (RequestTimeout("late", reused=True), Remedy.NEW_CONNECTION),
        (DecodeError("HTML"), None),
        (ServiceError(code="RequestTimeTooSkewed", status=403), Remedy.NEW_TIME),
        (AccessDenied(code="SignatureExpired", status=401), Remedy.NEW_TIME),
        (AccessDenied("Request has expired", code="AccessDenied", status=403), Remedy.NEW_TIME),
        (AccessDenied(code="AccessDenied", status=403), Remedy.NEW_CREDENTIALS),
        (InvalidArgument(code="InvalidAccessKeyId", status=400), Remedy.NEW_CREDENTIALS),
        (JobNotFound(code="AuditingJobNotFound", status=404), None),
        (Throttled(code="SlowDown", status=429), None),
    ],
)
def test_what_another_attempt_can_change(error: LiveAuditError, expected: Remedy | None) -> None:
    """A stale connection, a wrong clock and refused credentials can be remedied at once."""
    assert remedy(error) is expected


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId", "SecretidNotExist"])
def test_credentials_the_service_no_longer_knows_are_stale(code: str) -> None:
    """They are renewed; credentials that merely lack a right are not."""
    assert is_stale(AccessDenied(code=code, status=403))
    assert not is_stale(AccessDenied(code="AccessDenied", status=403))
    assert not is_stale(TransportError("reset"))
