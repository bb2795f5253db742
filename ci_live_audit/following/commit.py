"""What a run tells its checkpoint about a job. Pure."""

from __future__ import annotations

from typing import Literal

import attrs

from ci_live_audit.errors import JobFailed, JobNotFound, LiveAuditError
from ci_live_audit.models import AuditJob, JobState

__all__ = ["Commit", "last_commit"]


@attrs.frozen(kw_only=True)
class Commit:
    """What a consumer has dealt with: a finding or an outcome.

    Attributes:
        job_id: The job that it is of.
        action: ``"keep"``: the job is followed further. ``"end"``: the service has said of it what
            it will always say. ``"aside"``: it is not over, but this run follows it no longer; a
            later one does. ``"release"``: another process may follow it at once. ``"forget"``: it
            is not followed, and may come again; ``"give_up"``: in a later run.
        seen: What was seen of the job, to be appended to what is noted already.
        verdict: With ``"end"``: the verdict of the job, if it has one.
        error: With ``"end"``: the name of the error's class, if there was one.
    """

    job_id: str
    action: Literal["keep", "end", "aside", "release", "forget", "give_up"]
    seen: bytes = b""
    verdict: int | None = None
    error: str | None = None


def last_commit(job_id: str, job: AuditJob | None, error: LiveAuditError | None) -> Commit:
    """Return what is to be noted with the last that a run says of a job."""
    if job is not None and job.ended:
        error_name = JobFailed.__name__ if job.state == JobState.FAILED else None
        verdict = None if job.result is None else int(job.result)
        return Commit(job_id=job_id, action="end", verdict=verdict, error=error_name)
    if isinstance(error, JobNotFound):
        return Commit(job_id=job_id, action="end", error=type(error).__name__)
    return Commit(job_id=job_id, action="aside")
