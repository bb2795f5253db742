"""Metrics are few whatever comes, and name nobody; unused, they load nothing."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import attrs
from proofs import times
from sdk import Sdk

from ci_live_audit import (
    Attempt,
    AudioFinding,
    AudioSection,
    AuditJob,
    Finding,
    JobFailed,
    JobState,
    LiveAuditError,
    ServiceError,
    Snapshot,
    SnapshotFinding,
    StateChange,
    UserInfo,
    Verdict,
    VerdictChange,
    WatchFailed,
    errors,
)
from ci_live_audit.telemetry import OpenTelemetry
from ci_live_audit.testing import Emulator, Fault, frame

MOST = 150
ERRORS = [getattr(errors, name) for name in errors.__all__]
NOW = datetime(2026, 8, 7, 12, tzinfo=UTC)


class Chaos:
    """Makes up what a service, or a program, might say."""

    def __init__(self) -> None:
        self._random = random.Random(1)

    def word(self, *known: str) -> str:
        """Return one of these words, or any other."""
        return self._random.choice([*known, f"odd {self._random.randrange(1000)}"])

    def error(self) -> Any:
        """Return an error of any class, with any status and code."""
        kind: Any = self._random.choice(
            [*ERRORS, KeyboardInterrupt, type(self.word(), (Exception,), {})]
        )
        if issubclass(kind, ServiceError):
            return kind(self.word(), status=self._random.randrange(1000), code=self.word())
        if issubclass(kind, JobFailed):
            return kind(self.word(), job=AuditJob(job_id="a", state=JobState("odd")))
        return kind(self.word())

    def attempt(self) -> Attempt:
        """Return an attempt with anything."""
        one = self._random.choice
        return Attempt(
            operation=self.word("query", "cancel", "submit"),
            number=self._random.randrange(1, 9),
            job_id=self.word(),
            status=one([None, 200, self._random.randrange(1000)]),
            request_id=self.word(),
            error=one([None, self.error()]),
            delay=one([None, 1.0]),
            endpoint=f"http://127.0.0.1:{self._random.randrange(1, 65536)}",
            lane=one(["call", "poll", None]),
        )

    def finding(self) -> Finding:
        """Return a finding of any class, with any verdict."""
        number = self._random.randrange(1000)
        at = round(NOW.timestamp() * 1000) - number
        job = AuditJob(job_id="a", state=JobState(self.word()), received_at=NOW)
        about: Any = {"job_id": "a", "key": "k", "source": self.word("poll", "callback")}
        item: Any = {"label": self.word(), "result": Verdict(number)}
        snapshot, section = Snapshot(snapshot_time=at, **item), AudioSection(offset_time=at, **item)
        findings: list[Finding] = [
            SnapshotFinding(snapshot=snapshot, job=job, **about),
            AudioFinding(audio_section=section, job=job, **about),
            StateChange(state=job.state, job=job, **about),
            VerdictChange(verdict=Verdict(number), job=job, **about),
            WatchFailed(error=LiveAuditError(self.word()), **about),
        ]
        return self._random.choice(findings)


@attrs.frozen
class Odd:
    """A run of an unknown kind."""

    kind: str
    open: int = 1
    lag: float = 1.0


def test_there_are_at_most_150_series_whatever_comes() -> None:
    """Any statuses, codes, operations, verdicts, states and words make few series in all."""
    sdk = Sdk()
    telemetry = sdk.telemetry("none")
    chaos = Chaos()
    counts: Counter[str] = Counter()
    telemetry.observe(SimpleNamespace(counts=counts, takeovers=1))
    client = Emulator().client(on_attempt=telemetry)
    runs = [Odd(chaos.word("watch", "wait", "as_completed")) for _ in range(20)]
    for run in runs:
        telemetry.run_began(run)
    for _ in range(times(50_000)):
        telemetry(chaos.attempt())
        telemetry.found(chaos.finding())
        telemetry.call_ended(chaos.word("query", "cancel", "submit"), None, 1.0, chaos.error())
        counts[chaos.word("taken", "duplicate", "refused", "unreadable", "probe", "busy")] += 1
    assert 140 <= len(sdk.series()) <= MOST
    del client


async def test_metrics_name_nobody() -> None:
    """No id, no bucket, no URL, no label and no text is an attribute of a metric."""
    emulator = Emulator()
    sdk = Sdk()
    url = "rtmp://live.example.com/app/room7"
    emulator.add_stream(url, duration=10, script=[frame(2, "Porn", text="a text")])
    async with emulator.client(on_attempt=sdk.telemetry("all")) as client:
        submitted = await client.submit(
            url, data_id="my-data", biz_type="my-biz", user_info=UserInfo(token_id="my-token")
        )
        emulator.inject(Fault.error(503), times=1)
        async with client.watch(submitted.job_id, interval=3) as findings:
            found = [finding async for finding in findings]
        job = await client.query(submitted.job_id)
        series = sdk.series()
    assert len(series) >= 15
    told = " ".join(f"{name} {dict(attributes)}" for name, attributes in series)
    secrets = [submitted.job_id, url, emulator.bucket, "Porn", "a text", "my-", "1250000000"]
    secrets += [finding.key for finding in found]
    assert job.request_id
    assert [secret for secret in secrets if secret in told] == []


def test_unused_it_imports_nothing() -> None:
    """A client without observers, at work, has loaded nothing of OpenTelemetry."""
    program = """if True:
        import asyncio, sys
        from ci_live_audit.testing import Emulator, VirtualTimeLoop
        async def main():
            emulator = Emulator()
            async with emulator.client(on_attempt=print) as client:
                await client.wait(emulator.add_job(duration=1), interval=2)
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(main())
        print(sorted(name for name in sys.modules if "telemetry" in name))
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_it_is_made_without_a_loop() -> None:
    """An application may make it while it is set up."""
    assert callable(OpenTelemetry())
