"""An HTTP response, and what its headers say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import attrs

from ci_live_audit.errors import LiveAuditError

__all__ = ["Response", "http_date"]


@attrs.frozen(kw_only=True)
class Response:
    """What the service sent back.

    The names of its headers are lower-case, its body is no longer compressed. ``error`` says why
    there is no body; it is None if the response is complete.
    """

    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b""
    error: LiveAuditError | None = None

    @classmethod
    def head(cls, status: int, fields: Iterable[tuple[bytes, bytes]]) -> Response:
        """Return a response of which only the head has arrived."""
        texts = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in fields)
        return cls(status=status, headers={name.lower(): value for name, value in texts})

    @property
    def request_id(self) -> str | None:
        """The id that CI or the COS gateway gave the request."""
        return self._named("request-id")

    @property
    def trace_id(self) -> str | None:
        """The id of the trace, of CI or the COS gateway."""
        return self._named("trace-id")

    @property
    def date(self) -> datetime | None:
        """The server's time when it sent the response."""
        return http_date(self.headers.get("date", ""))

    @property
    def retry_after(self) -> float | None:
        """Seconds the service asks to wait, from a number or from a date relative to ``date``.

        https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
        """
        value = self.headers.get("retry-after", "")
        try:
            seconds = float(value)
        except ValueError:
            until, now = http_date(value), self.date
            if until is None or now is None:
                return None
            seconds = (until - now).total_seconds()
        return seconds if seconds >= 0 else None

    def _named(self, name: str) -> str | None:
        return self.headers.get(f"x-ci-{name}") or self.headers.get(f"x-cos-{name}")


def http_date(value: str) -> datetime | None:
    """Return the time in a ``Date`` header; None if it cannot be read."""
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
