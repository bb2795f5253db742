"""The types of the public names, for type checkers; never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import assert_type

import httpx
import httpx2

from ci_live_audit import (
    Attempt,
    AudioSection,
    AuditJob,
    CancelledJob,
    Checkpoint,
    Credentials,
    JobState,
    LiveAuditClient,
    LiveAuditError,
    LocalRateLimiter,
    Plan,
    RateLimiter,
    RetryPolicy,
    Scene,
    ServiceError,
    Snapshot,
    SubmittedJob,
    TransportError,
    UserInfo,
    Verdict,
    decode,
    plan,
)
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


async def following(client: LiveAuditClient, ids: AsyncIterator[str]) -> None:
    assert_type(await client.wait("av1", interval=10, timeout=3600), AuditJob)
    with Checkpoint("run.jsonl") as checkpoint:
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
            assert_type(finding.verdict, Verdict | None)
            assert_type(finding.snapshot, Snapshot | None)
        assert_type(findings.job, AuditJob | None)
    client.watch(ids)
    assert_type(client.plan(1000).period, float)
    assert_type(plan(1000, rate=5), Plan)


def errors(error: ServiceError | TransportError) -> None:
    assert_type(error.may_have_happened, bool)
    assert_type(error.transient, bool)
    if isinstance(error, ServiceError):
        assert_type(error.retry_after, float | None)
    else:
        assert_type(error.sent, bool)


async def kit(emulator: Emulator) -> None:
    assert_type(emulator.add_job(duration=9, script=[frame(1, "Porn"), sound(2)]), str)
    assert_type(emulator.client(rate=5), LiveAuditClient)
    assert_type(emulator.arrivals, list[Arrival])
    emulator.inject(Fault.throttle(retry_after=1), times=2)
    async with emulator.serve() as url:
        assert_type(url, str)
