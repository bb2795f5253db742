"""A night: thousands of jobs of four hours, through all that can happen to a run meanwhile.

Three outages (resets, 503, 429), two kills of the process, a client that is closed and a disk that
is full. Every id must be answered exactly once, and none before its end was known. The parts run in
processes of their own, each on virtual time that begins where the one before was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
from following import in_virtual_time
from report import Table

from ci_live_audit import Checkpoint, ConfigurationError, LiveAuditClient, Outcome
from ci_live_audit.testing import Emulator, Fault

__all__ = ["run"]

HOUR = 3600.0
#: Seconds from the start of the night at which things happen.
KILLS = (0.8 * HOUR, 2.6 * HOUR)
CLOSING = 3.75 * HOUR
FULL_DISK = 3.9 * HOUR
FULL_FOR = 120.0


@attrs.frozen
class Outage:
    """An outage, by its beginning and length in seconds."""

    kind: str
    fault: Fault
    begin: float
    length: float

    @property
    def end(self) -> float:
        """When it ends."""
        return self.begin + self.length


OUTAGES = (
    Outage("resets", Fault.reset(), 0.5 * HOUR, 300),
    Outage("503", Fault.error(503), 1.1 * HOUR, 1200),
    Outage("429", Fault.throttle(), 2.2 * HOUR, 3600),
)


def run(*, quick: bool) -> Iterator[Table]:
    """Yield what became of the jobs, and what the outages cost."""
    jobs = 50 if quick else 2000
    with tempfile.TemporaryDirectory() as folder:
        facts = _night(Path(folder), jobs)
        answers = _entries(Path(folder) / "checkpoint", "answered")
        outcomes = [json.loads(line) for line in (Path(folder) / "outcomes").open()]
    seen = Counter(it["job_id"] for it in outcomes)
    yield Table(
        f"a night: {jobs:,} jobs of four hours, 3 outages, 2 kills, a closed client, a full disk",
        ("", "measured", "right"),
        [
            ("ids answered", len(answers), jobs),
            ("ids answered twice", answers.total() - len(answers), 0),
            ("outcomes handed out twice", seen.total() - len(seen), f"<= {len(KILLS) + 1}"),
            ("outcomes before the job's end", sum(it["early"] for it in outcomes), 0),
            ("outcomes that are errors", sum(it["error"] is not None for it in outcomes), 0),
            ("errors of the full disk", facts["full disk"], "> 0"),
            ("runs ended by a closed client", facts["closed"], 1),
        ],
        (
            "Virtual time, the whole client over the emulator. An outcome in hand when the process",
            "is killed, or when the client is closed, may be handed out again.",
        ),
    )
    yield Table(
        "outages: what was sent, and how soon all is as before",
        ("", "minutes", "requests a minute", "seconds to full pace", "goal"),
        [(it.kind, it.length / 60, *facts[it.kind], 20) for it in OUTAGES if it.kind in facts],
        ("Full pace: the first ten seconds with 95 % of the polls of ten seconds before it.",),
    )


def _night(folder: Path, jobs: int) -> dict[str, Any]:
    """Run the parts, and return the facts that they told."""
    facts: dict[str, Any] = {}
    begin = 0.0
    for kill in (*KILLS, None):
        part = [sys.executable, __file__, str(folder), str(jobs), str(begin), str(kill or 0)]
        done = subprocess.run(part, stdout=subprocess.PIPE, text=True, check=False)
        assert done.returncode == (0 if kill is None else -signal.SIGKILL), done.returncode
        for line in done.stdout.splitlines():
            facts |= json.loads(line)
        begin = kill or 0.0
    return facts


def _entries(path: Path, kind: str) -> Counter[str]:
    """Count the ids of a kind of entries in a checkpoint."""
    entries = map(json.loads, path.read_text().splitlines())
    return Counter(entry[kind] for entry in entries if kind in entry)


@attrs.define
class Part:
    """One process of the night."""

    folder: Path
    begin: float
    emulator: Emulator
    ends: dict[str, float]
    full_disk: int = 0
    closed: int = 0

    def now(self) -> float:
        """Return the seconds since the beginning of the night."""
        return self.begin + asyncio.get_running_loop().time()

    async def follow(self) -> None:
        """Follow the jobs to their ends, with a new client after one that was closed."""
        while True:
            with Checkpoint(self.folder / "checkpoint") as checkpoint:
                async with self.emulator.client() as client:
                    closing = asyncio.create_task(self.close(client))
                    try:
                        await self.follow_with(client, checkpoint)
                    except ConfigurationError:
                        self.closed += 1
                        tell({"closed": self.closed})
                        continue
                    finally:
                        closing.cancel()
                    return

    async def follow_with(self, client: LiveAuditClient, checkpoint: Checkpoint) -> None:
        """Follow the jobs with one client."""
        async with client.as_completed(list(self.ends), checkpoint=checkpoint) as outcomes:
            while True:
                try:
                    self.note(await anext(outcomes))
                except StopAsyncIteration:
                    return
                except OSError:
                    self.full_disk += 1
                    await asyncio.sleep(10)

    def note(self, outcome: Outcome) -> None:
        """Write an outcome to a file of its own, which is never on the full disk."""
        early = outcome.job is None or not outcome.job.ended
        early = early or self.now() < self.ends[outcome.job_id]
        error = None if outcome.error is None else str(outcome.error)
        line = {"job_id": outcome.job_id, "early": early, "error": error}
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        with (self.folder / "outcomes").open("a") as file:
            file.write(json.dumps(line) + "\n")
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    async def close(self, client: LiveAuditClient) -> None:
        """Close the client when it is time."""
        if self.now() < CLOSING:
            await self.until(CLOSING)
            await client.aclose()

    async def fill_the_disk(self) -> None:
        """Leave no room for a while."""
        await self.until(FULL_DISK)
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = (self.folder / "checkpoint").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, hard))
        await asyncio.sleep(FULL_FOR)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        tell({"full disk": self.full_disk})

    async def break_down(self, outage: Outage) -> None:
        """Be out for a while, and tell what that cost."""
        if self.now() >= outage.end:
            return
        await self.until(outage.begin)
        before = self.arrived(10.0)
        since = len(self.emulator.arrivals)
        self.emulator.inject(outage.fault)
        await self.until(outage.end)
        sent = len(self.emulator.arrivals) - since
        self.emulator.faults.clear()
        usual = before if self.begin < outage.begin else 10 * min(20.0, len(self.ends) / 10)
        while self.arrived(10.0) < 0.95 * usual:  # noqa: ASYNC110 - time is what it waits for
            await asyncio.sleep(0.1)
        pace = self.now() - outage.end - 10.0
        minutes = (outage.end - max(self.begin, outage.begin)) / 60
        tell({outage.kind: (sent / minutes, max(0.0, pace))})

    def arrived(self, seconds: float) -> int:
        """Return how many requests arrived in the last seconds."""
        since = self.emulator.clock() - seconds
        recent = self.emulator.arrivals[-int(seconds * 25) :]
        return sum(arrival.time > since for arrival in recent)

    async def until(self, time: float) -> None:
        """Wait until a time of the night."""
        await asyncio.sleep(max(0.0, time - self.now()))


def tell(facts: dict[str, Any]) -> None:
    """Tell the parent a fact."""
    print(json.dumps(facts), flush=True)


async def _part(folder: Path, jobs: int, begin: float, kill: float) -> None:
    random.seed(begin)  # for the jitter of the client
    rng = random.Random(0)
    loop = asyncio.get_running_loop()
    emulator = Emulator(clock=lambda: begin + loop.time())
    ends: dict[str, float] = {}
    for number in range(jobs):
        end = 4 * HOUR + rng.uniform(-0.5, 0.5) * HOUR
        # The clock of the emulator goes on; its jobs begin when they are added.
        ends[emulator.add_job(f"av{number:032}", duration=end - begin, script=[])] = end
    part = Part(folder, begin, emulator, ends)
    if kill:
        loop.call_later(kill - begin, os.kill, os.getpid(), signal.SIGKILL)
    others = [part.fill_the_disk(), *map(part.break_down, OUTAGES)]
    tasks = [asyncio.create_task(other) for other in others]
    await part.follow()
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


if __name__ == "__main__":
    _, to, count, *times = sys.argv
    in_virtual_time(_part(Path(to), int(count), *map(float, times)))
