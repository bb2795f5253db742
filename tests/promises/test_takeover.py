"""Whatever ends a process that watches, another one goes on where it was."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter, defaultdict
from pathlib import Path

from children import children, members
from daemons import RedisServer
from proofs import times

from ci_live_audit import Checkpoint

STREAMS, ITEMS = 20, 40
KILLS = times(50)
#: Most findings that a watch deals with before it waits to be killed.
MOST = 15

# What a child runs. A stream shows one item more each time it is polled.
WATCHES = f"""
import asyncio, os, signal, sys
from ci_live_audit import AuditJob, Checkpoint, Findings, JobState, Snapshot, Verdict
from ci_live_audit.following.polling import Polling

def note(name, line):
    file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, line.encode() + b"\\n")
    size = os.fstat(file).st_size
    os.close(file)
    return size

async def query(job_id, reading):
    shown = note("polled-" + job_id, "1234567") // 8
    await asyncio.sleep(0.0005)
    job = AuditJob(
        job_id=job_id,
        state=JobState.AUDITING if shown < {ITEMS} else JobState.SUCCESS,
        snapshots=tuple(
            Snapshot(url=f"{{job_id}}/{{number:02}}?q-signature={{shown}}", snapshot_time=number,
                     label="Porn", result=Verdict(number % 3))
            for number in range(1, min(shown, {ITEMS}) + 1)
        ),
    )
    reading.compare(job)
    return job

async def run(waits):
    ids = [f"job{{number:02}}" for number in range({STREAMS})]
    with Checkpoint("checkpoint") as checkpoint:
        async with Findings(Polling(query, 0.001, checkpoint=checkpoint), ids) as findings:
            dealt_with = 0
            async for finding in findings:
                what = (finding.url or f"{{finding.job_id}}/{{finding.state.value[:2]}}")[:8]
                note("findings", f"{{what}} {{finding.key}}")
                dealt_with += 1
                if waits and dealt_with == {MOST}:
                    await asyncio.sleep(3600)
"""
#: Bytes of a line: the stream, what was found, the key.
LINE = len("job00/01 0123456789abcdef\n")


def test_a_killed_watch_hands_out_nothing_anew_but_the_finding_in_hand(tmp_path: Path) -> None:
    """Killed anywhere, again and again, a watch of 20 streams repeats one finding at most."""
    rng = random.Random(1)
    found = tmp_path / "findings"
    found.touch()
    with children(WATCHES, tmp_path) as watches:
        for _ in range(KILLS):
            before = found.stat().st_size
            watches.start(1)
            while found.stat().st_size < before + LINE * rng.randint(1, MOST):
                time.sleep(0.0002)
            time.sleep(rng.random() * 0.003)
            watches.kill()
        watches.start(0)
        assert watches.wait() == 0

    number = Counter[str]()
    keys = defaultdict[str, set[str]](set)
    for line in found.read_text().splitlines():
        what, key = line.split()
        number[what] += 1
        keys[what].add(key)
    streams = [f"job{number:02}" for number in range(STREAMS)]
    items = {f"{stream}/{item:02}" for stream in streams for item in range(1, ITEMS + 1)}
    # If each process is killed before it comes to a stream, only the end of that is handed out.
    ends, ways = ({f"{stream}/{state}" for stream in streams} for state in ("Su", "Au"))
    assert items | ends <= number.keys() <= items | ends | ways
    assert number.total() - len(number) <= KILLS
    assert {len(one) for one in keys.values()} == {1}
    with Checkpoint(tmp_path / "checkpoint") as checkpoint:
        assert (checkpoint.open, checkpoint.answered) == ((), STREAMS)


# Several processes over Redis

SHARED, FINDINGS = 120, 8
#: Processes that are killed, and that are stopped for longer than they may be silent.
KILLED, STOPPED = times(20), times(5)

# Starts a process of a shared watch for each line it reads. All see the same streams, which have
# one item more every now and then, by the clock.
MEMBERS = f"""
import asyncio, logging, os, signal, sys, time
from ci_live_audit import AuditJob, Findings, JobState, Snapshot, Verdict
from ci_live_audit.following.dispatcher import Polling
from ci_live_audit.redis import RedisCheckpoint
import redis.asyncio

url, began, period = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])

def note(line):
    file = os.open("notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{{time.time():.3f}} {{os.getpid()}} {{line}}\\n".encode())
    os.close(file)

class Lost(logging.Handler):
    def emit(self, record):
        note("log " + record.getMessage())

async def query(job_id, reading):
    note("query " + job_id)
    await asyncio.sleep(0.001)
    shown = int((time.time() - began) / period)
    job = AuditJob(
        job_id=job_id,
        state=JobState.AUDITING if shown <= {FINDINGS} else JobState.SUCCESS,
        snapshots=tuple(
            Snapshot(url=f"{{job_id}}/{{number}}", snapshot_time=number, result=Verdict(1))
            for number in range(1, min(shown, {FINDINGS}) + 1)
        ),
    )
    reading.compare(job)
    return job

async def follow():
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    checkpoint = RedisCheckpoint(url, "streams", ttl=1.5)
    checkpoint.bind("bucket", "region")
    ids = [f"job{{number:03}}" for number in range({SHARED})]
    async with Findings(Polling(query, 0.2, checkpoint=checkpoint), ids) as findings:
        async for finding in findings:
            what = finding.url or f"{{finding.job_id}}/{{finding.state.value}}"
            note(f"finding {{what}} {{finding.key}}")
    await checkpoint.aclose()

def run():
    logging.getLogger("ci_live_audit").addHandler(Lost())
    asyncio.run(follow())
    note("over")
"""


def test_processes_that_die_are_replaced_by_the_others(tmp_path: Path, redis: RedisServer) -> None:
    """Killed and stopped at random, four processes hand out all, and again what was in hand."""
    rng = random.Random(1)
    notes = tmp_path / "notes"
    notes.touch()
    period = 0.2 + KILLED / 18 + STOPPED / 4
    arguments = [redis.url, str(time.time() + 1), str(period)]
    with members(MEMBERS, tmp_path, *arguments) as processes:
        for _ in range(4):
            processes.start()
        ends = [signal.SIGKILL] * KILLED + [signal.SIGSTOP] * STOPPED
        rng.shuffle(ends)
        wait_for_findings(notes, 20)
        for end in ends:
            time.sleep(rng.random() * 0.5)
            if " over\n" in notes.read_text():
                break  # on a machine so slow that all was found before
            process = processes.alive.pop(rng.randrange(4))
            processes.send(process, end)
            if end == signal.SIGKILL:
                processes.start()
            else:
                time.sleep(2.2)
                processes.send(process, signal.SIGCONT)
                processes.alive.append(process)
        until = time.monotonic() + 50
        while notes.read_text().count(" over\n") < 4 and time.monotonic() < until:
            time.sleep(0.05)

    number, keys, silent = Counter[str](), defaultdict[str, set[str]](set), 0
    for line in notes.read_text().splitlines():
        match line.split()[2:]:
            case ["finding", what, key]:
                number[what] += 1
                keys[what].add(key)
            case ["log", *words]:
                silent += "dead:" in words
    streams = [f"job{number:03}" for number in range(SHARED)]
    items = {f"{stream}/{item}" for stream in streams for item in range(1, FINDINGS + 1)}
    assert items | {f"{stream}/Success" for stream in streams} <= number.keys()
    assert {len(one) for one in keys.values()} == {1}
    # A process that is not given the processor for so long counts as dead, too.
    assert number.total() - len(number) <= KILLED + max(STOPPED, silent)


def wait_for_findings(notes: Path, number: int) -> None:
    """Wait until some findings have been noted."""
    while notes.read_text().count(" finding ") < number:
        time.sleep(0.005)
