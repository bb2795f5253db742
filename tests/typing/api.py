"""The types of the public names, for type checkers; never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Literal, assert_never, assert_type

import httpx
import httpx2

from ci_live_audit import (
    Attempt,
    AudioFinding,
    AudioSection,
    AuditJob,
    CallbackReceiver,
    Cancellation,
    CancelledJob,
    Checkpoint,
    Credentials,
    Finding,
    JobFailed,
    JobState,
    LiveAuditClient,
    LiveAuditError,
    LocalRateLimiter,
    Observer,
    Plan,
    RateLimiter,
    RetryPolicy,
    Scene,
    ServiceError,
    Snapshot,
    SnapshotFinding,
    StateChange,
    Stream,
    SubmittedJob,
    TransportError,
    UserInfo,
    Verdict,
    VerdictChange,
    WatchFailed,
    decode,
    plan,
    report,
)
from ci_live_audit.callbacks import Callback
from ci_live_audit.telemetry import OpenTelemetry
from ci_live_audit.testing import Arrival, Emulator, Fault, frame, sound


async def verbs(client: LiveAuditClient) -> None:
    submitted = await client.submit(
        "rtmp://live.example.com/app/room7",
        biz_type="b81d45f9",
        data_id="room 7",
        user_info=UserInfo(ip="10.0.0.1"),
        callback="https://example.com/hook",
        callback_type=2,
        storage_path="/live",
        extra={"Conf": {"CallbackVersion": "Detail"}},
    )
    assert_type(submitted, SubmittedJob)
    assert_type(submitted.state, JobState | None)
    assert_type(await client.cancel(submitted.job_id), CancelledJob)
    assert_type(await client.query(submitted.job_id), AuditJob)


def results(job: AuditJob) -> None:
    assert_type(job.result, Verdict | None)
    assert_type(job.ended, bool)
    assert_type(job.creation_time, datetime | None)
    assert_type(job.snapshots, tuple[Snapshot, ...])
    assert_type(job.audio_sections, tuple[AudioSection, ...])
    assert_type(job.scenes, Mapping[str, Scene])
    assert_type(job.porn, Scene | None)
    assert_type(job.snapshots[0].ads, Scene | None)
    assert_type(decode.job(b""), AuditJob)
    assert_type(decode.from_dict(job.to_dict()), AuditJob)
    assert_type(report.render([job], title="Night", now=job.received_at), str)


async def provider() -> Credentials:
    return Credentials("id", "key", "token", expires_at=0.0)


class Object:
    secret_id = "id"
    secret_key = "key"
    token: str | None = None


class Info:
    def get_credential_info(self) -> tuple[str, str, str | None]:
        return "id", "key", None


def options(attempts: list[Attempt]) -> None:
    limiter = LocalRateLimiter(20)
    assert_type(limiter.rate, float)
    shared: RateLimiter = limiter
    LiveAuditClient("bucket-1250000000", "ap-beijing", credentials=provider)
    LiveAuditClient("bucket-1250000000", credentials=lambda: Credentials("id", "key"))
    LiveAuditClient("bucket-1250000000", credentials=Object(), limiter=shared)
    LiveAuditClient("bucket-1250000000", credentials=Info(), retry=RetryPolicy(attempts=1))
    LiveAuditClient("bucket-1250000000", http_client=httpx.AsyncClient(), timeout=5)
    client = LiveAuditClient("bucket-1250000000", http_client=httpx2.AsyncClient())
    assert_type(client.with_options(on_attempt=attempts.append), LiveAuditClient)
    telemetry = OpenTelemetry(spans="all")
    observer: Observer = telemetry
    LiveAuditClient("bucket-1250000000", on_attempt=telemetry)
    client.with_options(on_attempt=[attempts.append, observer, print])
    client.with_options(on_attempt=iter([telemetry]))


async def following(client: LiveAuditClient, ids: AsyncIterator[str]) -> None:
    assert_type(await client.wait("av1", interval=10, timeout=3600), AuditJob)
    with Checkpoint("run.jsonl") as checkpoint:
        async with client.watch(["av1"], checkpoint=checkpoint) as continued:
            assert_type(await anext(continued), Finding)
        async with client.as_completed(["av1"], interval=10, checkpoint=checkpoint) as outcomes:
            async for outcome in outcomes:
                assert_type(outcome.job_id, str)
                assert_type(outcome.job, AuditJob | None)
                assert_type(outcome.error, LiveAuditError | None)
                assert_type(outcome.unwrap(), AuditJob)
            assert_type(outcomes.progress.eta, float | None)
    client.as_completed(iter(["av1"]), timeout=60)
    async with client.watch("av1", interval=10) as findings:
        async for finding in findings:
            assert_type(finding, Finding)
            if finding.verdict == Verdict.SENSITIVE:
                assert_type(finding.job, AuditJob)
            if finding.at is not None:
                assert_type(finding.score, int | None)
                assert_type(finding, SnapshotFinding | AudioFinding)
        assert_type(findings.job, AuditJob | None)
    client.watch(ids)
    streams = [Stream("rtmp://live.example.com/app/room7", data_id="room 7", callback_type=2)]
    async with client.moderate(streams, at_once=20, biz_type="b81d45f9") as moderated:
        async for finding in moderated:
            assert_type(finding, Finding)
    assert_type(moderated.cancelled, tuple[Cancellation, ...])
    assert_type(moderated.not_cancelled[0].error, LiveAuditError | None)
    client.moderate(ids, cancel_on_exit=False, extra={"Conf": {"CallbackVersion": "Detail"}})
    assert_type(client.plan(1000).period, float)
    assert_type(plan(1000, rate=5), Plan)


def told(finding: Finding) -> str:
    assert_type(finding.job_id, str)
    assert_type(finding.key, str)
    assert_type(finding.source, Literal["poll", "callback"])
    assert_type(finding.stream, Stream | None)
    assert_type(finding.verdict, Verdict | None)
    assert_type(finding.label, str | None)
    assert_type(finding.score, int | None)
    assert_type(finding.at, datetime | None)
    assert_type(finding.time, int | None)
    assert_type(finding.url, str | None)
    assert_type(finding.hits, Mapping[str, Scene])
    if not isinstance(finding, WatchFailed):
        assert_type(finding.job, AuditJob)
    match finding:
        case SnapshotFinding(snapshot=snapshot):
            return f"{assert_type(snapshot, Snapshot)}"
        case AudioFinding(audio_section=section):
            return f"{assert_type(section, AudioSection)}"
        case StateChange(state=state):
            return f"{assert_type(state, JobState)}"
        case VerdictChange(verdict=verdict):
            return f"{assert_type(verdict, Verdict)}"
        case WatchFailed(error=error):
            return f"{assert_type(error, LiveAuditError)}"
        case _:
            assert_never(finding)


def times(snapshot: Snapshot, section: AudioSection) -> None:
    assert_type(snapshot.taken_at, datetime | None)
    assert_type(section.began_at, datetime | None)
    assert_type(snapshot.hits, Mapping[str, Scene])


def errors(error: ServiceError | TransportError) -> None:
    assert_type(error.may_have_happened, bool)
    assert_type(error.transient, bool)
    if isinstance(error, ServiceError):
        assert_type(error.retry_after, float | None)
    else:
        assert_type(error.sent, bool)


def failed(error: JobFailed) -> None:
    assert_type(error.job, AuditJob)


async def receiving(callback: Callback, headers: Mapping[str, str]) -> None:
    async def consume(callback: Callback) -> None: ...

    receiver = CallbackReceiver(["0123456789abcdef", b"fedcba9876543210"], on_callback=consume)
    assert_type(receiver.url("https://example.com/callbacks", "room7"), str)
    assert_type(receiver.take("/callbacks", headers, b""), int)
    assert_type(receiver.take("/callbacks", None, b""), int)
    assert_type(receiver.trusted(), CallbackReceiver)
    assert_type(receiver.is_trusted, bool)
    assert_type(receiver.counts["taken"], int)
    receiver.subscribe(lambda callback: assert_type(callback.job_id, str | None))()


async def kit(emulator: Emulator) -> None:
    assert_type(emulator.add_job(duration=9, script=[frame(1, "Porn"), sound(2)]), str)
    assert_type(emulator.client(rate=5), LiveAuditClient)
    assert_type(emulator.arrivals, list[Arrival])
    emulator.inject(Fault.throttle(retry_after=1), times=2)
    async with emulator.serve() as url:
        assert_type(url, str)
