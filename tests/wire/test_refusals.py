"""Responses: their heads, what they mean, and what another attempt can change about it."""

from __future__ import annotations

from typing import Any

import pytest

from ci_live_audit import decode
from ci_live_audit.errors import (
    AccessDenied,
    ConfigurationError,
    DecodeError,
    InvalidArgument,
    JobNotFound,
    LiveAuditError,
    ServiceError,
    ServiceUnavailable,
    Throttled,
    TransportError,
)
from ci_live_audit.testing.render import error_document
from ci_live_audit.wire.refusals import Remedy, failure, is_stale, remedy
from ci_live_audit.wire.responses import Response

IN_A_SUCCESS = [
    ("InternalError", ServiceUnavailable, True),
    ("ServiceUnavailable", ServiceUnavailable, True),
    ("SlowDown", Throttled, False),
    ("AccessDenied", AccessDenied, False),
    ("InvalidArgument", InvalidArgument, False),
    ("NoSuchBucket", InvalidArgument, False),
    ("SignatureExpired", AccessDenied, False),
    ("AuditingJobNotFound", JobNotFound, False),
    ("NeverHeardOf", ServiceError, True),
]


@pytest.mark.parametrize(("code", "kind", "happened"), IN_A_SUCCESS)
def test_an_error_document_with_status_200_counts_as_with_its_own(
    code: str, kind: type[ServiceError], happened: bool
) -> None:
    """Object stores send error documents with 200: the code says what they mean."""
    for read in (decode.job, decode.submitted, decode.cancelled):
        with pytest.raises(ServiceError) as caught:
            read(error_document(code, "why", "r"))
        error = caught.value
        assert (type(error), error.status, error.code) == (kind, 200, code)
        assert error.may_have_happened is happened


def test_the_status_is_said_once() -> None:
    """The title of a gateway's page begins with the status, which the error says anyway."""
    page = b"<html><head><title>502 Bad Gateway</title></head><body/></html>"
    assert str(failure(Response(status=502, body=page))) == "502 Bad Gateway"


BROKEN = TransportError("the connection broke")


@pytest.mark.parametrize("status", [200, 204, 299])
def test_a_success_has_a_body_to_read(status: int) -> None:
    """A complete response with a 2xx status is not a failure."""
    assert failure(Response(status=status)) is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, ServiceError), (429, Throttled), (500, ServiceUnavailable), (302, ServiceError)],
)
def test_every_other_status_is_an_error_of_the_service(
    status: int, kind: type[ServiceError]
) -> None:
    """A complete response with another status is the error that it stands for."""
    error = failure(Response(status=status))
    assert isinstance(error, kind)
    assert error.__cause__ is None


@pytest.mark.parametrize("status", [200, 404])
def test_a_response_without_its_body_is_the_error_of_its_transfer(status: int) -> None:
    """Without its body, a response with most statuses means only that its transfer failed."""
    assert failure(Response(status=status, error=BROKEN)) is BROKEN


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_overloaded_service_needs_no_body(status: int) -> None:
    """A status that refuses service for now is enough, and the failed transfer is its cause."""
    error = failure(Response(status=status, error=BROKEN))
    assert isinstance(error, ServiceError)
    assert (error.status, error.__cause__) == (status, BROKEN)


def refused(status: int, code: str, message: str = "why") -> ServiceError:
    error = failure(Response(status=status, body=error_document(code, message, "r")))
    assert isinstance(error, ServiceError)
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TransportError("reset", reused=True), Remedy.NEW_CONNECTION),
        (TransportError("reset"), None),
        (DecodeError("not a document"), None),
        (ConfigurationError("bucket: none"), None),
        (refused(400, "ExpiredToken"), Remedy.NEW_CREDENTIALS),
        (refused(403, "InvalidAccessKeyId"), Remedy.NEW_CREDENTIALS),
        (refused(403, "RequestTimeTooSkewed"), Remedy.NEW_TIME),
        (refused(401, "SignatureExpired"), Remedy.NEW_TIME),
        (refused(403, "AccessDenied", "Request has expired"), Remedy.NEW_TIME),
        (refused(403, "AccessDenied"), Remedy.NEW_CREDENTIALS),
        (AccessDenied("no"), Remedy.NEW_CREDENTIALS),
        (refused(404, "AuditingJobNotFound"), None),
        (refused(503, "SlowDown"), None),
    ],
    ids=lambda value: getattr(value, "code", "") or str(value),
)
def test_remedy(error: LiveAuditError, expected: Any) -> None:
    """Each error has the remedy that another attempt can use at once, or none."""
    assert remedy(error) is expected


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId", "SecretidNotExist"])
def test_credentials_the_service_no_longer_knows_are_stale(code: str) -> None:
    """They are renewed; credentials that merely lack a right are not."""
    assert is_stale(refused(403, code))
    assert not is_stale(refused(403, "AccessDenied"))
    assert not is_stale(TransportError("reset"))
