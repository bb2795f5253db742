"""A response and what its headers say."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ci_live_audit.wire.responses import Response, http_date

DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
MOMENT = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


def test_header_names_are_in_lower_case() -> None:
    """Names of headers are the same however they are spelled; values stay as they are."""
    assert Response.head(200, [(b"X-Name", b"\xe9")]).headers == {"x-name": "\u00e9"}
    head = Response.head(200, [(b"X-CI-Request-Id", b"R1"), (b"Date", DATE.encode())])
    assert head == Response(status=200, headers={"x-ci-request-id": "R1", "date": DATE})


@pytest.mark.parametrize("gateway", ["ci", "cos"])
def test_ids_come_from_either_gateway(gateway: str) -> None:
    """CI and the COS gateway name their ids differently."""
    headers = {f"x-{gateway}-request-id": "r", f"x-{gateway}-trace-id": "t"}
    response = Response(status=200, headers=headers)
    assert (response.request_id, response.trace_id) == ("r", "t")
    assert (Response(status=200).request_id, Response(status=200).trace_id) == (None, None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (DATE, MOMENT),
        ("Tue, 14 Nov 2023 22:13:20", MOMENT),
        ("", None),
        ("yesterday", None),
        ("Tue, 14 Nov 2023 99:00:00 GMT", None),
    ],
)
def test_dates(value: str, expected: datetime | None) -> None:
    """A Date is aware, UTC if it names no zone, and None if it cannot be read."""
    assert http_date(value) == expected
    assert Response(status=200, headers={"date": value}).date == expected
