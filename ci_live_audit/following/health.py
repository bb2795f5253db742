"""What the polls of a run say about the service as a whole: an outage, or a fault that stays.

Pure but for its log messages.
"""

from __future__ import annotations

import logging
import math

from ci_live_audit.errors import (
    ConfigurationError,
    CredentialsError,
    DecodeError,
    InvalidArgument,
    InvalidInput,
    JobNotFound,
    LiveAuditError,
    ServiceError,
)

__all__ = ["Health"]

logger: logging.Logger = logging.getLogger("ci_live_audit")

#: Failures in a row that are an outage, and refusals in a row that are a fault of all jobs.
FAILURES, REFUSALS = 10, 5
#: Seconds from one probe to the next, doubled up to the longest. A probe that is still in flight
#: after the longest does not hold up the next.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 10.0
#: Seconds from one message about an outage to the next.
REPORT = 60.0


class Health:
    """Judges the service by the results of polls, in the order in which they come.

    While nothing succeeds, a run sends one probe at a time instead of polling every job.
    """

    def __init__(self) -> None:
        self._has_succeeded = False
        self._failed = self._refused = 0
        self._since = math.inf
        self._pause = FIRST_PAUSE
        self._reported = -math.inf
        #: Number of results that show that the service is there.
        self.responses: int = 0
        #: The last error, if no poll has succeeded since.
        self.error: LiveAuditError | None = None
        #: Whether the service is out.
        self.is_out: bool = False
        #: When the next probe may be sent; minus infinity without an outage.
        self.next_probe: float = -math.inf

    def outage(self, now: float) -> float | None:
        """Return the seconds for which nothing has succeeded; None without an outage."""
        return now - self._since if self.is_out else None

    def record_success(self, now: float) -> None:
        """Record a poll that returned a job."""
        self._has_succeeded = True
        self._refused = 0
        self._record_response(now)

    def record_error(self, error: LiveAuditError, now: float, jobs: int) -> None:
        """Record a poll that failed, in a run with this many open jobs."""
        if not self.may_pass(error):
            self._refused = 0 if _is_about_one_job(error) else self._refused + 1
            if isinstance(error, ServiceError | DecodeError):
                self._record_response(now)
            return
        self._failed += 1
        self.error = error
        self._since = min(self._since, now)
        if self.is_out:
            self.next_probe = min(self.next_probe, now + self._pause)
        elif self._failed >= min(FAILURES, jobs):
            self.is_out = True
            self.next_probe = now + self._pause
            self._reported = now
            text = "nothing succeeds any more: %s; jobs stay open, and one probe at a time is sent"
            logger.warning(text, error)
        if self.is_out and now - self._reported >= REPORT:
            self._reported = now
            logger.warning("nothing has succeeded for %.0f s: %s", now - self._since, error)

    def record_probe(self, now: float) -> None:
        """Record that a probe is sent."""
        self.next_probe = now + LONGEST_PAUSE
        self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def may_pass(self, error: LiveAuditError) -> bool:
        """Return whether a later poll of the same job may succeed."""
        if isinstance(error, CredentialsError):
            return self._has_succeeded
        # A refusal without a document is not the service's: a proxy's page, half a response.
        by_proxy = isinstance(error, ServiceError) and error.status > 0 and not error.code
        return error.transient or by_proxy

    def is_fatal(self, error: LiveAuditError) -> bool:
        """Return whether an error, already recorded, would be that of every other job as well."""
        if isinstance(error, ConfigurationError) and not isinstance(
            error, CredentialsError | InvalidInput
        ):
            return True  # a closed client, for example
        return self._refused >= REFUSALS and not _is_about_one_job(error)

    def _record_response(self, now: float) -> None:
        if self.is_out:
            logger.warning("the service responds again after %.0f s", now - self._since)
        self.responses += 1
        self._failed, self._since, self._pause = 0, math.inf, FIRST_PAUSE
        self.error, self.is_out, self.next_probe = None, False, -math.inf


def _is_about_one_job(error: LiveAuditError) -> bool:
    """Return whether a lasting error says nothing about other jobs.

    https://www.tencentcloud.com/document/product/1045/43611
    """
    if isinstance(error, InvalidArgument):  # by its status, so for any code
        return error.code == "InvalidArgument"
    return isinstance(error, JobNotFound | DecodeError | InvalidInput)
