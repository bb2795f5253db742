"""Whatever ends processes that moderate together, no stream has two jobs and none runs unseen."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

from children import members
from command_line import served
from daemons import RedisServer
from proofs import IN_FULL, times

from ci_live_audit.testing import Emulator, frame

STREAMS, AT_ONCE = 80 if IN_FULL else 12, 6
KILLS, TERMINATED = times(30), times(10)
LABELS = "Porn", "Ads"

# Starts a process for each line it reads; each moderates the same list, and notes what it finds.
MEMBERS = f"""
import asyncio, json, os, signal, sys
from ci_live_audit import LiveAuditClient, StateChange, WatchFailed
from ci_live_audit.redis import RedisCheckpoint
from ci_live_audit.transport import connections
import redis.asyncio

urls = [f"rtmp://live.example.com/app/{{number}}" for number in range({STREAMS})]

def note(*line):
    file = os.open("notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, json.dumps([os.getpid(), *line]).encode() + b"\\n")
    os.close(file)

async def moderate():
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    async with LiveAuditClient(rate=500) as client, RedisCheckpoint(sys.argv[1], "s", 1.2) as all_:
        async with client.moderate(
            urls, at_once={AT_ONCE}, interval=0.05, checkpoint=all_
        ) as findings:
            async for one in findings:
                over = isinstance(one, StateChange) and one.job.ended
                lost = isinstance(one, WatchFailed) and one.error.may_have_happened
                kind = "over" if over else "lost" if lost else type(one).__name__
                note(kind, str(one.stream), one.job_id, one.label, one.key)

def run():
    try:
        asyncio.run(moderate())
        note("done", "", "", "", "")
    except asyncio.CancelledError:
        note("left", "", "", "", "")
"""


def test_processes_that_moderate_together_may_die_anywhere(
    tmp_path: Path, own_redis: RedisServer
) -> None:
    """Killed and terminated at random, they submit each stream once and miss nothing of it."""
    rng = random.Random(1)
    emulator = Emulator(rate=math.inf)
    for number in range(STREAMS):
        duration = rng.uniform(0.2, 0.8)
        script = [frame(rng.uniform(0, duration), label) for label in LABELS]
        emulator.add_stream(
            f"rtmp://live.example.com/app/{number}", duration=duration, script=script
        )
    notes = tmp_path / "notes"
    notes.touch()
    with (
        served(emulator) as environ,
        members(MEMBERS, tmp_path, own_redis.url, environ=environ) as processes,
    ):
        for _ in range(3):
            processes.start()
        ends = [signal.SIGKILL] * KILLS + [signal.SIGTERM] * TERMINATED
        rng.shuffle(ends)
        for end in ends:
            before = len(emulator.arrivals)
            enough = before + rng.randint(10, 60)
            while len(emulator.arrivals) < enough and '"done"' not in notes.read_text():
                time.sleep(0.001)
            if '"done"' in notes.read_text():
                break
            os.kill(processes.alive.pop(rng.randrange(3)), end)
            processes.start()
        until = time.monotonic() + 60
        while notes.read_text().count('"done"') < 3 and time.monotonic() < until:
            time.sleep(0.02)

    lines = [json.loads(line)[1:] for line in notes.read_text().splitlines()]
    submitted = Counter(job.url for job in emulator.jobs.values())
    over = {url for kind, url, *_ in lines if kind == "over"}
    lost = {url for kind, url, *_ in lines if kind == "lost"}
    seen = {job_id for _, _, job_id, *_ in lines}
    shown = {(url, label) for _, url, _, label, _ in lines}
    assert max(submitted.values()) == 1
    assert over | lost == {f"rtmp://live.example.com/app/{number}" for number in range(STREAMS)}
    assert all(job.job_id in seen or job.url in lost for job in emulator.jobs.values())
    assert {(url, label) for url in over for label in LABELS} <= shown
    keys = Counter(key for kind, *_, key in lines if kind not in {"done", "left", "lost"})
    assert keys.total() - len(keys) <= KILLS
