"""The errors: one tree, texts that say what happened, and nothing but plain values."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from ci_live_audit import errors
from ci_live_audit.errors import (
    AccessDenied,
    ConfigurationError,
    CredentialsError,
    DecodeError,
    InvalidArgument,
    InvalidInput,
    JobFailed,
    JobNotFound,
    LiveAuditError,
    RequestTimeout,
    ServiceError,
    ServiceUnavailable,
    Throttled,
    TransportError,
    WaitTimeout,
)
from ci_live_audit.models import AuditJob, JobState, ReadOnly, Scene

JOB = AuditJob(job_id="j1", state=JobState("Paused"), scenes=ReadOnly({"Porn": Scene(score=1)}))
SERVICE = {
    "status": 503,
    "code": "SlowDown",
    "request_id": "r1",
    "trace_id": "t1",
    "retry_after": 1.5,
}
SERVICE_ERRORS: list[type[ServiceError]] = [
    ServiceError,
    AccessDenied,
    InvalidArgument,
    JobNotFound,
    Throttled,
    ServiceUnavailable,
]
EVERY_ERROR: list[LiveAuditError] = [
    LiveAuditError("why"),
    ConfigurationError("why"),
    CredentialsError("why"),
    InvalidInput("why"),
    TransportError("why", sent=False),
    RequestTimeout("why"),
    DecodeError("why", path="JobsDetail.Label", excerpt="x"),
    *(kind("why", **SERVICE) for kind in SERVICE_ERRORS),  # type: ignore[arg-type]
    JobFailed("why", job=JOB),
    WaitTimeout("why", last=JOB),
]


HOSTILE = "a\nb\rc\x1b[2Jd\x00\x85\x9be\u2028f\u2029g\u202eh\u2066i\u200fj\u061ck\x7fl\ud800m"
ESCAPED = r"a\nb\rc\x1b[2Jd\x00\x85\x9be\u2028f\u2029g\u202eh\u2066i\u200fj\u061ck\x7fl\ud800m"


@pytest.mark.parametrize(
    "kind", [LiveAuditError, ConfigurationError, TransportError, partial(JobFailed, job=JOB)]
)
def test_one_error_is_one_line(kind: Callable[[str], LiveAuditError]) -> None:
    """Whatever a message, an operation, an id holds: no line break, no escape, no reversed text."""
    error = kind(HOSTILE)
    error.request_id = error.job_id = error.operation = HOSTILE
    assert str(error) == f"{ESCAPED} of {ESCAPED}: {ESCAPED} [request id {ESCAPED}]"
    assert error.to_dict()["text"] == str(error)
    assert error.job_id == HOSTILE  # what a program reads is as it came
    assert str(kind("直播 é 👩‍👩‍👧 a\\b")) == "直播 é 👩‍👩‍👧 a\\b"


def test_a_refusal_is_one_line() -> None:
    """The service's code and message, a path and an excerpt are escaped, too."""
    refused = ServiceError(HOSTILE, status=400, code=HOSTILE)
    assert str(refused) == f"400 {ESCAPED} {ESCAPED}"
    assert refused.message == HOSTILE
    broken = str(DecodeError(HOSTILE, path=HOSTILE, excerpt=HOSTILE))
    assert broken.startswith(f"{ESCAPED}: {ESCAPED}; got ")
    assert "\n" not in broken


def called(error: LiveAuditError, operation: str, job_id: str | None, attempts: int) -> Any:
    """Return an error as it leaves the client."""
    error.operation, error.job_id, error.attempts = operation, job_id, attempts
    return error


def subtree(cls: type[Exception]) -> dict[str, Any]:
    """Return the classes of the package below one, by name; other tests may have made more."""
    below = [one for one in cls.__subclasses__() if one.__module__.startswith("ci_live_audit")]
    return {one.__name__: subtree(one) for one in below}


def drawn(text: str) -> dict[str, Any]:
    """Return the tree that a docstring draws."""
    root: dict[str, Any] = {}
    path: list[dict[str, Any]] = [root]
    for indent, name in re.findall(r"^    ([ │├└─]*)([A-Z]\w+)\b", text, re.MULTILINE):
        depth = len(indent) // 4
        del path[depth + 1 :]
        path.append(path[depth].setdefault(name, {}))
    return root


def test_the_tree_is_as_drawn() -> None:
    """The drawing in the docstring shows every class in its place, and no other."""
    tree = {"LiveAuditError": subtree(LiveAuditError)}
    assert drawn(str(errors.__doc__)) == tree


def test_invalid_input_is_a_value_error() -> None:
    """What a caller passes is told apart as Python does it."""
    assert issubclass(InvalidInput, ValueError)


def test_every_error_is_exported() -> None:
    """Every error of the module is exported by it."""
    assert set(errors.__all__) == {type(error).__name__ for error in EVERY_ERROR}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (LiveAuditError("why"), "why"),
        (LiveAuditError(), ""),
        (called(LiveAuditError("why"), "query", "j1", 1), "query of j1: why (after 1 attempt)"),
        (called(CredentialsError("none"), "query", "j1", 1), "query of j1: none"),
        (
            called(CredentialsError("none"), "query", "j1", 2),
            "query of j1: none (after 2 attempts)",
        ),
        (called(LiveAuditError("why"), "submit", None, 3), "submit: why (after 3 attempts)"),
        (called(LiveAuditError("why"), "cancel", "j1", 0), "cancel of j1: why"),
        (DecodeError("why"), "why"),
        (DecodeError("why", path="JobsDetail.Label"), "JobsDetail.Label: why"),
        (DecodeError("why", excerpt="<a\n"), "why; got '<a\\n'"),
        (
            called(DecodeError("why", path="A.B[1]", excerpt="x"), "query", "j1", 2),
            "query of j1: A.B[1]: why; got 'x' (after 2 attempts)",
        ),
        (ServiceError(), ""),
        (ServiceError("why"), "why"),
        (ServiceError("why", status=404, code="NoSuchJob"), "404 NoSuchJob why"),
        (ServiceError(status=502), "502"),
        (
            called(Throttled("slow down", **SERVICE), "query", "j1", 4),  # type: ignore[arg-type]
            "query of j1: 503 SlowDown slow down [request id r1] (after 4 attempts)",
        ),
    ],
)
def test_text(error: LiveAuditError, text: str) -> None:
    """The text says the call, the place, the reason and the attempts, as far as they are known."""
    assert str(error) == text


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "remade",
    [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy],
    ids=["pickled", "copied", "copied deeply"],
)
def test_error_survives(error: LiveAuditError, remade: Any) -> None:
    """An error from a worker process reads the same as it did there."""
    error = called(copy.copy(error), "query", "j1", 2)
    error.may_have_happened = True
    again = remade(error)
    assert type(again) is type(error)
    assert (again.args, vars(again), str(again)) == (error.args, vars(error), str(error))


@pytest.mark.parametrize(
    ("error", "may_have_happened"),
    [
        (LiveAuditError("why"), False),
        (ConfigurationError("why"), False),
        (TransportError("why", sent=False), False),
        (TransportError("why"), True),
        (RequestTimeout("why"), True),
        (DecodeError("why"), True),
        (ServiceError("why", status=200), False),
        (InvalidArgument("why", status=400), False),
        (Throttled("why", status=429), False),
        (ServiceUnavailable("why", status=500), True),
        (ServiceUnavailable("why", status=503), True),
        (JobFailed("why", job=JOB), False),
        (WaitTimeout("why"), False),
    ],
)
def test_may_have_happened(error: LiveAuditError, *, may_have_happened: bool) -> None:
    """Only a request that certainly did not arrive, or was refused, did not happen."""
    assert error.may_have_happened is may_have_happened


@pytest.mark.parametrize("kind", SERVICE_ERRORS)
def test_service_error_carries_what_the_service_said(kind: type[ServiceError]) -> None:
    """Every class of service error has the same attributes."""
    error = kind("why", **SERVICE)  # type: ignore[arg-type]
    assert vars(error) == {
        **SERVICE,
        "message": "why",
        "may_have_happened": kind is not Throttled,  # the limit stands before everything else
    }


def test_waiting_errors_carry_the_job() -> None:
    """A failure always has its job, a timeout the job as it was last seen, or None."""
    assert JobFailed("why", job=JOB).job == JOB
    with pytest.raises(TypeError, match="job"):
        JobFailed("why")  # type: ignore[call-arg]
    assert (WaitTimeout("why", last=JOB).last, WaitTimeout("why").last) == (JOB, None)
