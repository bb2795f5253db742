"""Cancels jobs; where that is refused, a query shows what became of the job."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from ci_live_audit.calls import Caller
from ci_live_audit.errors import InvalidArgument, JobNotFound, LiveAuditError, Throttled
from ci_live_audit.models import ENDED, CancelledJob, JobState
from ci_live_audit.wire import requests, results

__all__ = ["cancel", "is_over", "stop"]


async def cancel(caller: Caller, job_id: str) -> CancelledJob:
    """Cancel a job, as `LiveAuditClient.cancel` does."""
    try:
        return await _send(caller, job_id)
    except (InvalidArgument, JobNotFound) as error:
        if isinstance(error, JobNotFound) and not error.may_have_happened:
            raise
        try:
            job = await caller.query(job_id)
        except LiveAuditError:
            raise error from None
        if job.state != JobState.CANCELLED and not (job.ended and error.may_have_happened):
            raise
    return CancelledJob(
        job_id=job_id,
        data_id=job.data_id,
        creation_time=job.creation_time,
        state=job.state,
        request_id=job.request_id,
    )


async def stop(caller: Caller, job_id: str) -> bool:
    """Cancel a job, unless it does not exist; return False if it has ended by itself.

    Raises:
        LiveAuditError: It may run on.
    """
    try:
        await _send(caller, job_id)
    except Throttled:
        raise  # and a query would be, too
    except LiveAuditError:
        with suppress(LiveAuditError):
            state = await _state(caller, job_id)
            if state in ENDED:
                return state == JobState.CANCELLED
        raise
    return True


async def is_over(caller: Caller, job_id: str) -> bool:
    """Return whether a job has ended or does not exist.

    Raises:
        LiveAuditError: It cannot be queried.
    """
    return await _state(caller, job_id) in ENDED


async def _state(caller: Caller, job_id: str) -> JobState:
    """Return the state of a job; one that does not exist is as good as cancelled."""
    try:
        return (await caller.query(job_id)).state
    except JobNotFound:
        return JobState.CANCELLED


async def _send(caller: Caller, job_id: str) -> CancelledJob:
    return await caller.call(requests.cancel(job_id), partial(results.cancelled, job_id=job_id))
