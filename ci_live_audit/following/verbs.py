"""What a client does with many jobs: wait, as_completed, watch, moderate, plan."""

from __future__ import annotations

from typing import Unpack

import attrs

from ci_live_audit.calls import Caller
from ci_live_audit.errors import InvalidInput
from ci_live_audit.following.checkpoint import Checkpoint
from ci_live_audit.following.findings import Findings
from ci_live_audit.following.ids import AnyCheckpoint, Source
from ci_live_audit.following.moderation import Moderation
from ci_live_audit.following.nudges import CallbackSource
from ci_live_audit.following.outcomes import Outcomes
from ci_live_audit.following.plan import Plan, plan
from ci_live_audit.following.polling import Polling, Query
from ci_live_audit.following.shared import SharedCheckpoint, SharedStreams
from ci_live_audit.following.shared_supervisor import SharedSupervisor
from ci_live_audit.following.streams import Streams, SubmitOptions
from ci_live_audit.following.supervisor import Supervisor, Terms
from ci_live_audit.limits.background import BackgroundRateLimiter
from ci_live_audit.models import AuditJob

__all__ = ["ManyJobs"]


class ManyJobs:
    """The verbs of `LiveAuditClient` that poll."""

    _caller: Caller
    _bucket: str
    _region: str
    _rate: float
    _background: BackgroundRateLimiter
    _moderations: set[Moderation]

    async def wait(
        self,
        job_id: str,
        interval: float = 10.0,
        timeout: float | None = None,
        *,
        callbacks: CallbackSource | None = None,
    ) -> AuditJob:
        """Query a job every ``interval`` seconds, and after each callback, until it has ended.

        Raises:
            JobFailed: It ended in state Failed; ``.job`` is the job.
            WaitTimeout: It did not end in ``timeout`` seconds; ``.last`` is the job as last
                seen.
            LiveAuditError: It cannot be queried. Transient errors are waited out.
        """
        polling = self._polling(interval, timeout, callbacks=callbacks)
        polling = attrs.evolve(polling, keep_last=True, kind="wait")
        async with Outcomes(polling, [job_id]) as outcomes:
            outcome = await anext(outcomes)
        return outcome.unwrap()

    def as_completed(
        self,
        job_ids: Source,
        interval: float = 10.0,
        timeout: float | None = None,
        *,
        checkpoint: AnyCheckpoint | None = None,
        callbacks: CallbackSource | None = None,
    ) -> Outcomes:
        """Follow many jobs and yield the `Outcome` of each as it ends.

        ::

            async with client.as_completed(job_ids) as outcomes:
                async for outcome in outcomes:
                    print(outcome.job_id, outcome.unwrap().label)

        Every id has exactly one outcome, even if it is given more than once, and the error of one
        job does not end the others. The most overdue job is polled first, so jobs take turns where
        the quota is too small for the interval. A slow consumer slows the polling down. Other calls
        take priority. An outage is waited out, with one probe at a time.

        The iteration itself raises what concerns all jobs: the client was closed, or five jobs in a
        row were refused for a reason of the account or the bucket. It raises the `OSError` of a
        checkpoint that cannot be written, too; called again, it goes on.

        Args:
            job_ids: A collection of ids, or an iterable, read as the quota allows. Of an endless
                one the last 50,000 finished ids are known. A sync one is read on the event loop.
            interval: Seconds from one query of a job to the next.
            timeout: Seconds for which a job is followed, counted from when its id was read (for a
                collection: from the start). The job is polled a last time just before the end, and
                its outcome is a `WaitTimeout`; of its lists, ``last`` has the three worst items.
            checkpoint: A file from which a later run can continue, or a `RedisCheckpoint` that
                several processes share. It answers an id once the job has ended, or the service has
                said that there is none; no other outcome does.
            callbacks: A `CallbackReceiver`: a job is queried as soon as a callback is about it,
                beside its turns, so the interval may be long. With its ``trusted()``, what a
                callback says is believed, and nobody asks again.

        Raises:
            ConfigurationError: An argument cannot be used, or it is another bucket's checkpoint.
            OSError: The checkpoint cannot be written.
        """
        self._bind(checkpoint, "as_completed")
        return Outcomes(self._polling(interval, timeout, checkpoint, callbacks), job_ids)

    def watch(
        self,
        job_ids: str | Source,
        interval: float = 10.0,
        timeout: float | None = None,
        *,
        checkpoint: AnyCheckpoint | None = None,
        callbacks: CallbackSource | None = None,
    ) -> Findings:
        """Follow one job or many and yield each `Finding` once, as it turns up.

        ::

            async with client.watch(job_id) as findings:
                async for finding in findings:
                    if finding.verdict == Verdict.SENSITIVE:
                        print(finding.label, finding.at, finding.job.ended)

        ``job_ids`` is an id, or what `as_completed` takes; the rest is as there. An error that ends
        a job early is raised if it is the only one, otherwise it comes as a `WatchFailed`. With a
        checkpoint, a later run hands out no finding anew but the one in hand.

        Raises: as `as_completed` does.
        """
        self._bind(checkpoint, "watch")
        return Findings(self._polling(interval, timeout, checkpoint, callbacks), job_ids)

    def moderate(
        self,
        urls: Streams,
        *,
        at_once: int = 10,
        interval: float = 10.0,
        timeout: float | None = None,
        cancel_on_exit: bool = True,
        cancel_within: float = 20.0,
        checkpoint: Checkpoint | SharedStreams | None = None,
        callbacks: CallbackSource | None = None,
        **options: Unpack[SubmitOptions],
    ) -> Moderation:
        """Submit live streams, watch them, and cancel what still runs when the block is left.

        ::

            async with client.moderate(urls) as findings:
                async for finding in findings:
                    if finding.verdict == Verdict.SENSITIVE:
                        print(finding.stream, finding.label)

        ``urls`` are URLs or `Stream`, in a list, an iterable or an async iterable; ``options`` are
        those of `submit`, for streams without their own. `Moderation` tells the rest.

        Raises:
            ConfigurationError: An argument cannot be used, or it is another bucket's checkpoint.
            OSError: The checkpoint cannot be written.
        """
        self._bind(checkpoint, "moderate")
        terms = Terms(at_once, cancel_on_exit, cancel_within, options)
        supervisor = (
            SharedSupervisor(self._caller, urls, terms, checkpoint)
            if isinstance(checkpoint, SharedStreams)
            else Supervisor(self._caller, urls, terms, checkpoint)
        )
        polling = attrs.evolve(
            self._polling(interval, timeout, callbacks=callbacks), kind="moderate"
        )
        return Moderation(polling, supervisor, self._moderations)

    def plan(self, jobs: int, interval: float = 10.0) -> Plan:
        """Calculate how often this client's rate allows jobs to be polled, as `plan` does.

        Raises:
            ConfigurationError: A number cannot be used.
        """
        return plan(jobs, interval=interval, rate=self._rate)

    def _bind(self, checkpoint: AnyCheckpoint | None, kind: str) -> None:
        """Note in a checkpoint what the run is about that is being made."""
        if isinstance(checkpoint, SharedStreams if kind == "moderate" else SharedCheckpoint):
            checkpoint.bind(self._bucket, self._region, kind)
        elif isinstance(checkpoint, Checkpoint):
            checkpoint.bind(self._bucket, self._region)
        elif checkpoint is not None:
            raise InvalidInput(
                f"checkpoint: {kind} takes a Checkpoint or a RedisCheckpoint, "
                f"got {type(checkpoint).__name__}"
            )

    def _polling(
        self,
        interval: float,
        timeout: float | None,
        checkpoint: AnyCheckpoint | None = None,
        callbacks: CallbackSource | None = None,
    ) -> Polling:
        """Return how a run polls: behind all other calls on this client."""
        limiter = self._background.sibling()
        caller = attrs.evolve(self._caller, limiter=limiter, lane="poll")
        once = attrs.evolve(caller, retry=attrs.evolve(caller.retry, attempts=1))
        limits, scope = (interval, timeout, limiter, self._rate), caller.transport.open_call
        run = Polling(_polls(caller), *limits, checkpoint, probe=_polls(once), scope=scope)
        return attrs.evolve(run, callbacks=callbacks, audience=caller.on_attempt)


def _polls(caller: Caller) -> Query:
    return lambda job_id, reading: caller.query(job_id, reading.read)
