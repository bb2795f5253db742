"""``demo``: moderate three dozen live streams on an emulator, from submission to the end."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections import deque
from contextlib import nullcontext
from statistics import median

import attrs
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ci_live_audit.callbacks.receiver import CallbackReceiver
from ci_live_audit.cli.output import Terminal
from ci_live_audit.cli.rows import STYLES
from ci_live_audit.cli.words import is_flagged
from ci_live_audit.client import LiveAuditClient
from ci_live_audit.errors import LiveAuditError
from ci_live_audit.following.finding import Finding, SnapshotFinding, StateChange, WatchFailed
from ci_live_audit.following.streams import Stream
from ci_live_audit.models import AudioSection, AuditJob, JobState, Snapshot, Verdict
from ci_live_audit.retry import Attempt
from ci_live_audit.testing import Emulator, frame, sound
from ci_live_audit.testing.serving import serve

# For how many seconds a stream runs, and its findings.
Script = tuple[float, list[Snapshot | AudioSection]]
CLEAN = (
    *("news", "chess", "cooking", "football", "lecture", "gardening", "weather", "opera", "yoga"),
    *("sailing", "pottery", "debate", "tennis", "origami", "jazz", "cycling", "painting", "quiz"),
    *("parliament", "aquarium", "marathon", "puppets", "knitting", "astronomy"),
)
STREAMS: dict[str, Script] = {
    "karaoke": (9.0, [frame(1), sound(1, "Ads", duration=2, score=91, text="buy now")]),
    "late-night": (30.0, [frame(1), frame(4, "Porn", score=98, sub_label="SexBehavior")]),
    "casino": (30.0, [frame(1), frame(5, "Ads", score=95, sub_label="Gambling")]),
    "camping": (8.0, [frame(2), frame(3, "Porn", score=61, result=Verdict.SUSPECTED)]),
    "protest": (30.0, [frame(1), frame(6, "Terrorism", score=97)]),
    "market": (30.0, [sound(3, "Ads", score=93, text="only today"), frame(3)]),
    "beach": (9.0, [frame(4, "Porn", score=58, result=Verdict.SUSPECTED)]),
    "party": (30.0, [frame(1), frame(7, "Porn", score=99)]),
    "replay": (30.0, [frame(2), frame(2.5, "Politics", score=92)]),
    "lottery": (30.0, [frame(3), frame(8, "Ads", score=96, sub_label="Gambling")]),
    "garage": (7.0, [frame(1)]),
    "broken": (6.0, [frame(1)]),
    **{name: (6.0 + 2 * math.sin(n), [frame(1), frame(4)]) for n, name in enumerate(CLEAN)},
}
FAILURES = {"broken": ("ResourceDownloadFailed", "unreadable")}
#: Seconds from one poll of a stream to the next; callbacks bring what is new before that.
INTERVAL = 30.0
#: The same without callbacks, for comparison.
POLLED = 2.0
#: Requests a second: on a busy machine some leave 300 ms late, and those after them in time; at the
#: full quota too many would arrive within one second.
RATE = 15.0
#: Number of recent findings to show.
LATEST = 10


@attrs.define
class _Row:
    room: str
    job_id: str = ""
    job: AuditJob | None = None
    cancelled: bool = False
    remark: str = ""
    first: float = math.inf
    last: float = -math.inf

    def see(self, now: float) -> None:
        """Note when something was seen of it."""
        self.first, self.last = min(self.first, now), now

    @property
    def watched(self) -> float:
        """The seconds from the first that was seen of it to the last."""
        return max(0.0, self.last - self.first)


class Demo:
    """Follows the streams and shows their findings: live on a terminal, as lines elsewhere.

    Args:
        console: Where to print; standard output by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Terminal(highlight=False)
        self._rows = {room: _Row(room) for room in STREAMS}
        self._latest: deque[Text] = deque(maxlen=LATEST)
        self._requests = 0
        self._throttled = 0
        #: How many seconds after they were taken snapshots arrived.
        self._delays: list[float] = []

    async def run(self) -> int:
        """Run until every job has ended; return the exit code."""
        emulator = Emulator(callbacks=True)
        for room, (duration, script) in STREAMS.items():
            failure = FAILURES.get(room)
            emulator.add_stream(_url(room), duration=duration, script=script, failure=failure)
        receiver = CallbackReceiver(secrets.token_bytes(32))
        began = asyncio.get_running_loop().time()
        async with (
            emulator.serve() as endpoint,
            serve(receiver, "127.0.0.1", 0) as base,
            LiveAuditClient(
                emulator.bucket,
                emulator.region,
                credentials=emulator.credentials,
                endpoint=endpoint,
                rate=RATE,
                on_attempt=self._count,
            ) as client,
        ):
            self._console.print(f"An emulator of the service is listening at {endpoint}.")
            self._print_prose(f"It calls back as soon as it finds something: {base}/….")
            streams = [
                Stream(_url(room), data_id=room, callback=receiver.url(base, room))
                for room in STREAMS
            ]
            moderation = client.moderate(
                streams,
                at_once=len(streams),
                interval=INTERVAL,
                callbacks=receiver.trusted(),  # as nobody else knows the URLs
                extra={"Conf": {"CallbackVersion": "Detail"}},
            )
            with self._live():
                async with moderation as findings:
                    async for finding in findings:
                        await self._react(client, finding)
        self._console.print(self._table())
        self._summarize(asyncio.get_running_loop().time() - began)
        return 0

    def _summarize(self, seconds: float) -> None:
        cancelled = sum(row.cancelled for row in self._rows.values())
        self._print_prose(
            f"{len(self._rows)} streams, {cancelled} cancelled, {self._requests} requests in "
            f"{seconds:.1f} s ({self._requests / seconds:.1f} a second; the quota is 20), "
            f"{self._throttled} throttled."
        )
        if self._delays:
            polls = sum(1 + math.ceil(row.watched / POLLED) for row in self._rows.values())
            self._print_prose(
                f"{len(self._delays)} snapshots were here {median(self._delays):.1f} s after they "
                f"were taken, at most {max(self._delays):.1f} s, as the service calls back. "
                f"Without that, polling every {POLLED:.0f} s would see them {POLLED / 2:.0f} s "
                f"late on average, for {len(self._rows) + polls + cancelled} requests."
            )

    async def _react(self, client: LiveAuditClient, finding: Finding) -> None:
        assert finding.stream is not None
        row = self._rows[str(finding.stream.data_id)]
        if isinstance(finding, WatchFailed):
            self._remark(row, finding.error)
            return
        row.job, row.job_id = finding.job, finding.job_id
        row.see(asyncio.get_running_loop().time())
        if isinstance(finding, SnapshotFinding) and finding.at is not None:
            self._delays.append(time.time() - finding.at.timestamp())
        self._report(row, finding)
        if finding.verdict == Verdict.SENSITIVE and not (row.job.ended or row.cancelled):
            try:
                await client.cancel(row.job_id)
            except LiveAuditError as error:
                self._remark(row, error)
            else:
                row.cancelled = True
                row.remark = "cancelled by the demo"
        elif finding.verdict == Verdict.SUSPECTED:
            row.remark = "needs review"
        elif isinstance(finding, StateChange) and finding.state == JobState.FAILED:
            row.remark = row.job.message or ""

    def _remark(self, row: _Row, error: LiveAuditError) -> None:
        row.remark = str(error)
        self._say(Text(f"{row.room}: {error}", style="red"))

    def _report(self, row: _Row, finding: Finding) -> None:
        """Print a line for a state or a flagged finding."""
        if isinstance(finding, StateChange):
            self._say(Text(f"{row.room}: {finding.state}"))
        elif is_flagged(finding.verdict):
            place = "a Snapshot" if isinstance(finding, SnapshotFinding) else "an AudioSection"
            text = f"{row.room}: {finding.label} in {place}"
            self._say(Text(text, style=STYLES.get(finding.verdict, "")))

    def _say(self, line: Text) -> None:
        if self._console.is_terminal:
            self._latest.append(line)
        else:
            self._console.print(line)

    def _print_prose(self, sentence: str) -> None:
        """Print a sentence, wrapped between words on a terminal only."""
        self._console.print(sentence, soft_wrap=not self._console.is_terminal)

    def _live(self) -> Live | nullcontext[None]:
        if not self._console.is_terminal:
            return nullcontext()
        return Live(
            get_renderable=self._view,
            console=self._console,
            refresh_per_second=8,
            transient=True,
        )

    def _view(self) -> Group:
        ended = sum(row.job is not None and row.job.ended for row in self._rows.values())
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=len(self._rows), completed=ended, width=30),
            f"{ended} of {len(self._rows)} ended, {self._requests} requests",
        )
        return Group(bar, *self._latest)

    def _table(self) -> Table:
        # Without borders the table fits into the 80 columns of a pipe.
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
        for name in ("stream", "job", "state", "found", "frames", "audio", ""):
            table.add_column(name, no_wrap=True)
        # Rows with a remark come last, next to the prompt.
        for row in sorted(self._rows.values(), key=lambda row: bool(row.remark)):
            job = row.job
            if job is None:
                table.add_row(row.room, row.job_id[:8], *[""] * 4, row.remark)
                continue
            table.add_row(
                row.room,
                row.job_id[:8],
                job.state,
                "" if job.state == JobState.FAILED else job.label,  # not known for good
                str(len(job.snapshots)),
                str(len(job.audio_sections)),
                row.remark,
                style=STYLES.get(job.result),
            )
        return table

    def _count(self, attempt: Attempt) -> None:
        self._requests += 1
        self._throttled += attempt.status == 429


def _url(room: str) -> str:
    return f"rtmp://live.example.com/app/{room}"
