"""Kills processes that watch, and measures how soon the others go on, and what is found twice.

Each process is a real one with a client of its own, over a real socket, and reports its attempts
and its findings to one recorder, whose clock is the only one. A redis-server of its own is started.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from typing import Any

import attrs
import shares
from quota import Server, recorder
from report import Cell, Table

from ci_live_audit import Attempt, Checkpoint, LiveAuditClient, SnapshotFinding
from ci_live_audit.redis import RedisCheckpoint
from ci_live_audit.testing import Emulator, frame

__all__ = ["run"]

PROCESSES, JOBS, FINDINGS = 4, 120, 8
#: Jobs of a process that has not got its share yet.
FEW = 20
#: Seconds after which a process counts as dead, and between two signs of life.
TTL, BEAT = 3.0, 1.0
INTERVAL = 2.0
#: Seconds for which a process is stopped.
STOPPED = 5.0
#: Of the watch by a single process.
STREAMS, PAUSE = 20, 0.2


def run(*, quick: bool) -> Iterator[Table]:
    """Yield the tables."""
    yield asyncio.run(_one_after_another(5 if quick else 50))
    if shutil.which("redis-server") is None:
        print("not measured: needs redis-server")
        return
    yield asyncio.run(_together(*((3, 2) if quick else (40, 10))))
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder)
        try:
            yield asyncio.run(shares.measure(server.url))
        finally:
            server.end()


# What processes report


@attrs.frozen
class _Query:
    """A query that a process has made."""

    began: float
    process: int
    job_id: str


@attrs.define
class _Record:
    """What all processes have done so far."""

    queries: list[_Query] = attrs.field(factory=list)
    #: How often each finding was handed out, and under which keys.
    found: Counter[str] = attrs.field(factory=Counter)
    keys: defaultdict[str, set[str]] = attrs.field(factory=lambda: defaultdict(set))
    #: When each process learnt that it counted as dead.
    learnt: dict[int, float] = attrs.field(factory=dict)
    over: int = 0

    def note(self, now: float, data: bytes) -> None:
        """Note what a process has said."""
        match json.loads(data):
            case {"process": process, "query": job_id, "took": took}:
                self.queries.append(_Query(now - took, process, job_id))
            case {"finding": what, "key": key}:
                self.found[what] += 1
                self.keys[what].add(key)
            case {"process": process, "log": text}:
                if "taken for dead" in text:
                    self.learnt[process] = now
            case _:
                self.over += 1

    def jobs_of(self, process: int) -> set[str]:
        """Return the jobs that a process was the last to query."""
        last = {query.job_id: query.process for query in self.queries}
        return {job_id for job_id, other in last.items() if other == process}

    def taken_over(self, process: int, jobs: set[str], since: float) -> list[float]:
        """Return after how many seconds others first queried each of a process's jobs."""
        after: dict[str, float] = {}
        for query in self.queries:
            if query.process != process and query.began > since and query.job_id in jobs:
                after.setdefault(query.job_id, query.began - since)
        return list(after.values())


@attrs.frozen
class _Service:
    """Jobs that go on for some time, and what is known of who follows them."""

    emulator: Emulator
    job_ids: list[str]
    record: _Record
    settings: dict[str, Any]

    def start(self) -> subprocess.Popen[bytes]:
        """Start a process that watches all jobs."""
        command = [sys.executable, __file__, json.dumps(self.settings)]
        return subprocess.Popen(command, env=os.environ)

    def row(self, name: str, kills: int, *more: Cell) -> tuple[Cell, ...]:
        """Return what was found, with more cells behind."""
        found, expected = self.record.found, len(self.job_ids) * FINDINGS
        again = found.total() - len(found)
        keys = max(map(len, self.record.keys.values()))
        shown = sum("." in what for what in found)
        return (name, kills, f"{shown} of {expected}", again, keys, *more)


@contextlib.asynccontextmanager
async def _serving(jobs: int, seconds: float, **settings: Any) -> AsyncIterator[_Service]:
    """Serve jobs that show their findings at random times, and end after some seconds."""
    rng, record = random.Random(1), _Record()
    emulator = Emulator(rate=100_000, clock=time.monotonic)
    job_ids = []
    for number in range(jobs):
        at = sorted(rng.uniform(0, seconds * 0.95) for _ in range(FINDINGS))
        script = [frame(time_, "Porn", text=f"{number}.{one}") for one, time_ in enumerate(at)]
        job_ids.append(emulator.add_job(duration=seconds, script=script))
    async with emulator.serve() as url:
        with recorder(record.note) as port:
            settings |= {"endpoint": url, "port": port, "jobs": job_ids}
            yield _Service(emulator, job_ids, record, settings)


# One process with a file


async def _one_after_another(kills: int) -> Table:
    """Return what a watch finds that is killed and started again."""
    rng = random.Random(2)
    with tempfile.TemporaryDirectory() as folder:
        settings = {"file": f"{folder}/checkpoint", "interval": PAUSE}
        async with _serving(STREAMS, kills * 1.5, **settings) as service:
            for _ in range(kills):
                process = service.start()
                before = service.record.found.total()
                # Its first findings are those that a repeated one would be among.
                await _until(lambda before=before: service.record.found.total() > before, 3)
                await asyncio.sleep(rng.uniform(0, 0.5))
                process.kill()
                process.wait()
            process = service.start()
            await _until(lambda: service.record.over, 300)
            process.wait()
            row = service.row(f"{STREAMS} streams, a file", kills)
    return Table(
        "One process that is killed and started again",
        ("", "killed", "found", "again", "keys each"),
        [row],
        ("Goal: all found, and at most one again for each kill, under its one key.",),
    )


# Several processes over Redis


async def _together(kills: int, stops: int) -> Table:
    """Return how soon others go on with what a process followed."""
    rng, ends = random.Random(3), ["kill"] * kills + ["stop"] * stops
    rng.shuffle(ends)
    took: dict[str, list[float]] = {"kill": [], "stop": []}
    late, learnt = 0, []
    seconds = 15 + kills * 5 + stops * (STOPPED + 4)
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder)
        settings = {"redis": server.url, "interval": INTERVAL}
        async with _serving(JOBS, seconds, **settings) as service:
            record = service.record
            processes = [service.start() for _ in range(PROCESSES)]
            for end in ends:
                # Until those that were started last have their share.
                await _until(
                    lambda: all(len(record.jobs_of(one.pid)) > FEW for one in processes), 30
                )
                await asyncio.sleep(rng.uniform(0, 1))
                process = processes.pop(rng.randrange(PROCESSES))
                jobs, since = record.jobs_of(process.pid), time.time()
                process.send_signal(signal.SIGKILL if end == "kill" else signal.SIGSTOP)
                if end == "kill":
                    process.wait()
                    processes.append(service.start())
                else:
                    await asyncio.sleep(STOPPED)
                took[end] += await _taken_over(record, process.pid, jobs, since)
                if end == "stop":
                    again = time.time()
                    process.send_signal(signal.SIGCONT)
                    processes.append(process)
                    known = await _learnt(record, process.pid, again)
                    learnt.append(known - again)
                    late += sum(
                        query.process == process.pid and again < query.began < known
                        for query in record.queries
                    )
            await _until(lambda: record.over == PROCESSES, seconds)
            for process in processes:
                process.kill()
                process.wait()
            server.end()
            longest = [max(took[end], default=0.0) for end in took]
            known_after = max(learnt, default=0.0)
            row = service.row(
                f"{PROCESSES} processes, {JOBS} jobs", kills, stops, *longest, known_after, late
            )
    return Table(
        f"Processes that share {JOBS} jobs over Redis: TTL {TTL:g} s, a beat {BEAT:g} s",
        (
            *("", "killed", "found", "again", "keys each", "stopped"),
            *("taken over, s", "of stopped, s", "learnt, s", "queries meanwhile"),
        ),
        [row],
        (
            f"Goals: all found; again at most once for each death; {TTL + BEAT + 0.5:g} s; none.",
            f"Taken over is the longest until the next query, at an interval of {INTERVAL:g} s.",
        ),
    )


async def _taken_over(record: _Record, process: int, jobs: set[str], since: float) -> list[float]:
    """Return after how many seconds others have queried each job of a process."""
    wait = TTL + BEAT + 4
    await _until(lambda: len(record.taken_over(process, jobs, since)) == len(jobs), wait)
    after = record.taken_over(process, jobs, since)
    return after + [math.inf] * (len(jobs) - len(after))


async def _learnt(record: _Record, process: int, since: float) -> float:
    """Return when a process has learnt that it counted as dead."""
    await _until(lambda: record.learnt.get(process, 0) > since, 10)
    known = record.learnt.get(process, 0)
    return known if known > since else math.inf


async def _until(condition: Any, seconds: float) -> None:
    """Wait until a condition holds, for some seconds at most."""
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:  # noqa: ASYNC110 - it is another thread's
        await asyncio.sleep(0.02)


# A process that watches


async def _watch(settings: dict[str, Any]) -> None:
    """Watch all jobs, and report."""
    here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    here.connect(("127.0.0.1", settings["port"]))

    def say(**said: Any) -> None:
        here.send(json.dumps({"process": os.getpid(), **said}).encode())

    def tell(attempt: Attempt) -> None:
        say(query=attempt.job_id, took=attempt.elapsed)

    class Teller(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(log=record.getMessage())

    logging.getLogger("ci_live_audit").addHandler(Teller())
    emulator = Emulator()
    client = LiveAuditClient(
        emulator.bucket,
        emulator.region,
        endpoint=settings["endpoint"],
        credentials=emulator.credentials,
        rate=200,
        on_attempt=tell,
    )
    checkpoint: Any = (
        RedisCheckpoint(settings["redis"], "takeover", ttl=TTL)
        if "redis" in settings
        else contextlib.nullcontext(Checkpoint(settings["file"]))
    )
    async with client, checkpoint as record:
        watching = client.watch(settings["jobs"], interval=settings["interval"], checkpoint=record)
        async with watching as findings:
            async for finding in findings:
                what = getattr(finding, "state", None)
                if isinstance(finding, SnapshotFinding):
                    what = finding.snapshot.text
                say(finding=f"{finding.job_id}/{what}", key=finding.key)
    say(over=True)


if __name__ == "__main__":
    asyncio.run(_watch(json.loads(sys.argv[1])))
