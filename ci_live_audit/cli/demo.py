"""``ci-live-audit demo``: a dozen live streams, from submission to the last finding."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import nullcontext

import attrs
from rich.console import Console
from rich.live import Live
from rich.table import Table

from ci_live_audit.client import LiveAuditClient
from ci_live_audit.errors import LiveAuditError
from ci_live_audit.findings import Finding
from ci_live_audit.models import AudioSection, AuditJob, JobState, Snapshot, Verdict
from ci_live_audit.retry import Attempt
from ci_live_audit.testing import Emulator, frame, sound

# Each stream: seconds it runs, and what is on it.
STREAMS: dict[str, tuple[float, list[Snapshot | AudioSection]]] = {
    "news": (5.0, [frame(1), frame(3), sound(1, text="good evening")]),
    "chess": (4.0, [frame(1), frame(2), frame(3)]),
    "karaoke": (6.0, [frame(1), sound(1, "Ads", duration=2, score=91, text="buy now")]),
    "late-night": (30.0, [frame(1), frame(2.5, "Porn", score=98, sub_label="SexBehavior")]),
    "cooking": (6.0, [frame(2), frame(4)]),
    "casino": (30.0, [frame(1), frame(3, "Ads", score=95, sub_label="Gambling")]),
    "football": (7.0, [frame(step) for step in range(1, 7)]),
    "camping": (5.0, [frame(2), frame(3, "Porn", score=61, result=Verdict.SUSPECTED)]),
    "lecture": (6.0, [frame(2), sound(2, text="chapter one")]),
    "protest": (30.0, [frame(1), frame(4, "Terrorism", score=97)]),
    "gardening": (3.0, [frame(1), frame(2)]),
    "broken": (4.0, [frame(1)]),
}
FAILURES = {"broken": ("ResourceDownloadFailed", "unreadable")}
INTERVAL = 0.5
STYLES = {Verdict.SENSITIVE: "bold red", Verdict.SUSPECTED: "yellow"}


@attrs.define
class _Row:
    room: str
    job_id: str = ""
    job: AuditJob | None = None
    cancelled: bool = False
    remark: str = ""


class Demo:
    """Follows the streams and shows them: a table that moves on a terminal, lines elsewhere.

    Args:
        console: Where it is shown.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows = [_Row(room) for room in STREAMS]
        self._requests = 0
        self._throttled = 0

    async def run(self) -> None:
        """Run until every job has ended."""
        emulator = Emulator()
        for room, (duration, script) in STREAMS.items():
            failure = FAILURES.get(room)
            emulator.add_stream(_url(room), duration=duration, script=script, failure=failure)
        began = asyncio.get_running_loop().time()
        async with (
            emulator.serve() as endpoint,
            LiveAuditClient(
                emulator.bucket,
                emulator.region,
                credentials=emulator.credentials,
                endpoint=endpoint,
                on_attempt=self._count,
            ) as client,
        ):
            self._console.print(f"An emulator of the service listens at {endpoint}.")
            with self._moving_table():
                async with client.watch(self._submitted(client), interval=INTERVAL) as findings:
                    async for finding in findings:
                        await self._heed(client, finding)
        if not self._console.is_terminal:
            self._console.print(self._table())
        seconds = asyncio.get_running_loop().time() - began
        cancelled = sum(row.cancelled for row in self._rows)
        self._console.print(
            f"{len(self._rows)} streams, {cancelled} cancelled, {self._requests} requests in "
            f"{seconds:.1f} s ({self._requests / seconds:.1f} a second; the quota is 20), "
            f"{self._throttled} refused by the quota."
        )

    async def _submitted(self, client: LiveAuditClient) -> AsyncGenerator[str, None]:
        """Submit the streams; their ids as they become known."""
        for row in self._rows:
            try:
                row.job_id = (await client.submit(_url(row.room), data_id=row.room)).job_id
            except LiveAuditError as error:  # the other streams go on
                self._remark(row, error)
            else:
                yield row.job_id

    async def _heed(self, client: LiveAuditClient, finding: Finding) -> None:
        row = next(row for row in self._rows if row.job_id == finding.job_id)
        if finding.error is not None or finding.job is None:
            self._remark(row, finding.error)
            return
        before, row.job = row.job, finding.job
        self._tell(row, before)
        if finding.verdict == Verdict.SENSITIVE and not (row.job.ended or row.cancelled):
            row.cancelled = True
            row.remark = "cancelled by us"
            try:
                await client.cancel(row.job_id)
            except LiveAuditError as error:
                self._remark(row, error)
        elif finding.verdict == Verdict.SUSPECTED:
            row.remark = "to be reviewed"
        elif finding.state == JobState.FAILED:
            row.remark = row.job.message or ""

    def _remark(self, row: _Row, error: LiveAuditError | None) -> None:
        row.remark = str(error)
        self._console.print(f"{row.room}: {error}")

    def _moving_table(self) -> Live | nullcontext[None]:
        if not self._console.is_terminal:
            return nullcontext()
        return Live(get_renderable=self._table, console=self._console, refresh_per_second=8)

    def _tell(self, row: _Row, before: AuditJob | None) -> None:
        job = row.job
        if self._console.is_terminal or job is None:
            return
        if before is None or (job.state, job.label) != (before.state, before.label):
            self._console.print(f"{row.room}: {job.state}, {job.label or 'nothing found yet'}")

    def _table(self) -> Table:
        # Without lines it fits into the 80 columns of a pipe.
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
        for name in ("stream", "job", "state", "found", "frames", "sounds", ""):
            table.add_column(name, no_wrap=True)
        for row in self._rows:
            job = row.job
            if job is None:
                table.add_row(row.room, row.job_id[:8], "Submitted" if row.job_id else "")
                continue
            table.add_row(
                row.room,
                row.job_id[:8],
                job.state,
                job.label,
                str(len(job.snapshots)),
                str(len(job.audio_sections)),
                row.remark,
                style=STYLES.get(job.result or Verdict.NORMAL),
            )
        return table

    def _count(self, attempt: Attempt) -> None:
        self._requests += 1
        self._throttled += attempt.status == 429


def _url(room: str) -> str:
    return f"rtmp://live.example.com/app/{room}"
