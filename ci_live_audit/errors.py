"""What can go wrong, as one tree.

::

    LiveAuditError
    ├── ConfigurationError        a bad argument, a missing extra, wrong use of the client
    │   ├── CredentialsError      no credentials found, or their provider failed
    │   └── InvalidInput          what was passed to a call cannot be used; a ValueError, too
    ├── TransportError            no complete response; .sent: may the request have arrived?
    │   └── RequestTimeout
    ├── DecodeError               a response that cannot be read; .path says where
    ├── ServiceError              the service refused; .status .code .message
    │   ├── AccessDenied
    │   ├── InvalidArgument
    │   ├── JobNotFound
    │   ├── Throttled             over the rate, by code or by status
    │   └── ServiceUnavailable    5xx and the like: try again later
    ├── JobFailed                 the job ended in state Failed; .job
    └── WaitTimeout               the deadline passed first; .last

Errors carry plain values only (no objects of an HTTP library, no secrets), so they can be logged,
pickled and kept.
"""

from __future__ import annotations

import re
from functools import partial
from math import isfinite
from typing import Any, Self

from ci_live_audit.models import AuditJob

__all__ = [
    "AccessDenied",
    "ConfigurationError",
    "CredentialsError",
    "DecodeError",
    "InvalidArgument",
    "InvalidInput",
    "JobFailed",
    "JobNotFound",
    "LiveAuditError",
    "RequestTimeout",
    "ServiceError",
    "ServiceUnavailable",
    "Throttled",
    "TransportError",
    "WaitTimeout",
]

# One error is one line of a log, and moves no cursor of a terminal: control characters (C0 and C1),
# separators of lines, marks that reverse what follows, halves of characters.
UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


class LiveAuditError(Exception):
    """The base of every error this library raises on purpose.

    Attributes:
        operation: ``"query"``, ``"cancel"``, ``"submit"`` or ``"wait"``; None if no call was made.
        job_id: The job that the call was about, if any.
        attempts: How many requests the call sent.
        request_id: The id that Tencent's support asks for; None if the service sent none.
        may_have_happened: Whether the service may have carried out the call all the same, in this
            attempt or an earlier one. After a failed ``submit``: whether a job, and its bill, may
            exist.
        transient: Whether the same call may succeed later.
        retry_after: Seconds the service asks to wait, if it does.
    """

    operation: str | None = None
    job_id: str | None = None
    attempts: int = 0
    request_id: str | None = None
    may_have_happened: bool = False
    transient: bool = False
    retry_after: float | None = None

    #: Attempts that sent nothing.
    _unsent = 0

    def __str__(self) -> str:
        return UNPRINTABLE.sub(_escaped, self._told())

    def _told(self) -> str:
        reason = self._reason() + (f" [request id {self.request_id}]" if self.request_id else "")
        if self.operation is None:
            return reason
        call = self.operation if self.job_id is None else f"{self.operation} of {self.job_id}"
        tries = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        return f"{call}: {reason}" + (f" (after {tries})" if self.attempts > self._unsent else "")

    def about(self, operation: str, job_id: str | None) -> Self:
        """Set the call that the error is about, and return the error."""
        self.operation, self.job_id = operation, job_id
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for ``json.dumps``: class, text and attributes.

        Jobs that the error carries are left out. ``text`` is one line, as ``str(error)`` is; what
        the service sent is as sent, control characters included.
        """
        names = ("operation", "job_id", "attempts", "request_id", "may_have_happened", "transient")
        known = {name: getattr(self, name) for name in names} | vars(self)
        plain = {name: value for name, value in known.items() if _is_plain(value)}
        return {"error": type(self).__name__, "text": str(self), **plain}

    def _reason(self) -> str:
        return super().__str__()


def _escaped(sign: re.Match[str]) -> str:
    return sign[0].encode("unicode_escape").decode()


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | None) or (isinstance(value, float) and isfinite(value))


class ConfigurationError(LiveAuditError):
    """An argument, the environment or the use of the client is wrong."""

    _unsent = 1  # it ended before anything could be sent


class CredentialsError(ConfigurationError):
    """No credentials were found, or their provider failed."""


class InvalidInput(ConfigurationError, ValueError):
    """What was passed to a call cannot be used: an id, a URL, a text, a number."""


class TransportError(LiveAuditError):
    """No complete response arrived.

    Attributes:
        sent: Whether the request may have arrived. False only if it certainly did not.
        reused: Whether an idle connection failed: the server may just have closed it.
        transient: False if a certificate cannot be verified, if client and server share no version
            of TLS, and if a proxy refuses with 401, 403 or 407; otherwise True.
    """

    transient = True

    def __init__(self, message: str, *, sent: bool = True, reused: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        self.reused = reused
        self.may_have_happened = sent


class RequestTimeout(TransportError):
    """An exchange did not end within ``timeout`` seconds, or a call by its deadline."""


class DecodeError(LiveAuditError):
    """A response arrived that cannot be read.

    Attributes:
        path: The node that cannot be read, such as ``JobsDetail.Snapshot[1].PornInfo.HitFlag``;
            empty if the body as a whole is no document (truncated, HTML, empty, …).
        excerpt: The beginning of what could not be read.
    """

    def __init__(self, message: str, *, path: str = "", excerpt: str = "") -> None:
        super().__init__(message)
        self.path = path
        self.excerpt = excerpt
        self.may_have_happened = True
        # A broken document may arrive intact next time; an unreadable value will not improve.
        self.transient: bool = not path

    def _reason(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return where + super()._reason() + (f"; got {self.excerpt!r}" if self.excerpt else "")


class ServiceError(LiveAuditError):
    """The service refused the request, with an error document or only a status.

    Error codes: https://www.tencentcloud.com/document/product/1045/43611

    Attributes:
        status: HTTP status.
        code: The service's code, such as ``"AccessDenied"``; empty if it sent none.
        message: The service's explanation; empty if it sent none.
        trace_id: The id that Tencent's support asks for, along with ``request_id``.
        hint: Our own explanation: if the signature does not match, which host was signed, and which
            one the service saw, where it says so. Otherwise empty.
    """

    hint: str = ""

    def __init__(
        self,
        message: str = "",
        *,
        status: int = 0,
        code: str = "",
        request_id: str | None = None,
        trace_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.request_id = request_id
        self.trace_id = trace_id
        self.retry_after = retry_after
        # The rate limit comes before everything else, whatever its status.
        self.may_have_happened: bool = status >= 500 and not isinstance(self, Throttled)

    def _reason(self) -> str:
        # The titles of gateways' pages begin with the status.
        message = self.message.removeprefix(f"{self.status} ")
        hint = f"({self.hint})" if self.hint else ""
        return " ".join(filter(None, (str(self.status or ""), self.code, message, hint)))


class AccessDenied(ServiceError):
    """Wrong, expired or unauthorized credentials, or a signature outside its time window."""


class InvalidArgument(ServiceError):
    """The service rejects the request as it is; sending it again will not help."""


class JobNotFound(ServiceError):
    """The service knows no such job, or no longer does."""


class Throttled(ServiceError):
    """More requests a second than the quota allows; certainly not carried out."""

    transient = True


class ServiceUnavailable(ServiceError):
    """The service cannot serve the request now."""

    transient = True


class JobFailed(LiveAuditError):
    """The job being waited for ended in state Failed.

    Attributes:
        job: The job, with the service's ``code`` and ``message``.
    """

    def __init__(self, message: str, *, job: AuditJob) -> None:
        super().__init__(message)
        self.job = job

    # By default, pickle and copy would call the class with the message alone.
    def __reduce__(self) -> tuple[object, ...]:
        return partial(type(self), job=self.job), self.args, vars(self)


class WaitTimeout(LiveAuditError):
    """The job did not end in time.

    Attributes:
        last: The job as it was last seen; None if it never was. In a run over many jobs it may be
            without snapshots and audio sections, and of more than 10,000 jobs only those with a
            suspected or sensitive verdict are kept until the next poll.
    """

    def __init__(self, message: str, *, last: AuditJob | None = None) -> None:
        super().__init__(message)
        self.last = last


def chain(problem: BaseException) -> list[BaseException]:
    """Return an exception and all that led to it, those of a group included."""
    found = [problem]
    for link in found:
        others = (link.__cause__, link.__context__, *getattr(link, "exceptions", ()))
        found += [one for one in others if one is not None and one not in found]
    return found


def strip_context(problem: BaseException) -> BaseException:
    """Strip an exception of frames and requests, which hold signed headers, and return it."""
    for link in chain(problem):
        link.__traceback__ = None
        if hasattr(type(link), "request"):
            link.request = None  # type: ignore[attr-defined]
        if "response" in vars(link):
            vars(link)["response"] = None
    return problem
