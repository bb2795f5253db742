"""Cancels a job: a refusal is no error if a query shows that the job is cancelled."""

from __future__ import annotations

from functools import partial

from ci_live_audit.calls import Caller
from ci_live_audit.errors import InvalidArgument, JobNotFound, LiveAuditError
from ci_live_audit.models import CancelledJob, JobState
from ci_live_audit.wire import requests, results

__all__ = ["cancel"]


async def cancel(caller: Caller, job_id: str) -> CancelledJob:
    """Stop a job, as `LiveAuditClient.cancel` does."""
    read = partial(results.cancelled, job_id=job_id)
    try:
        return await caller.call(requests.cancel(job_id), read)
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
