"""``emulate``: serve the emulator on this machine, with jobs to try things out on."""

from __future__ import annotations

import asyncio
import random
import sys
from contextlib import suppress

from ci_live_audit.cli.output import Exit, Output
from ci_live_audit.cli.words import count
from ci_live_audit.models import AudioSection, Snapshot, Verdict
from ci_live_audit.testing import Emulator, frame, sound

__all__ = ["ROOM", "add_room", "emulate"]

LABELS = ("Porn", "Ads", "Terrorism", "Politics")
#: The stream of the examples in the manual.
ROOM = "rtmp://live.example.com/app/room7"


def add_room(emulator: Emulator) -> None:
    """Let the stream of the manual show something bad after 20 s; others are clean."""
    script = [frame(5), frame(20, "Porn", score=98), frame(40)]
    emulator.add_stream(ROOM, duration=60, script=script)


async def emulate(
    output: Output, *, host: str, port: int, rate: float, jobs: int, duration: float, seed: int
) -> int:
    """Serve until interrupted; print the ids of the jobs to standard output."""
    emulator = Emulator(rate=rate, seed=seed, callbacks=True)
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    ids = [_job(emulator, chance, duration, f"room{number}") for number in range(jobs)]
    async with emulator.serve(port, host) as url:
        add_room(emulator)
        output.say(f"The emulator is listening at {url}. In another terminal:")
        for name, value in (
            ("CI_LIVE_AUDIT_ENDPOINT", url),
            ("CI_LIVE_AUDIT_BUCKET", emulator.bucket),
            ("CI_LIVE_AUDIT_RATE", f"{rate:g}"),
            ("TENCENTCLOUD_REGION", emulator.region),
            ("TENCENTCLOUD_SECRET_ID", emulator.credentials.secret_id),
            ("TENCENTCLOUD_SECRET_KEY", emulator.credentials.secret_key),
        ):
            output.say(f"export {name}={value}")
        sys.stdout.write("".join(f"{job_id}\n" for job_id in ids))
        sys.stdout.flush()
        with suppress(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()
    throttled = sum(arrival.status == 429 for arrival in emulator.arrivals)
    summary = f"{count(len(emulator.arrivals), 'request')}, {throttled:,} throttled"
    if emulator.deliveries:
        missed = sum(delivery.status != 200 for delivery in emulator.deliveries)
        summary += f"; {count(len(emulator.deliveries), 'callback')}, {missed:,} not taken"
    output.say(summary)
    return Exit.OK


def _job(emulator: Emulator, chance: random.Random, duration: float, name: str) -> str:
    """Add a job of about the duration; most jobs have no bad findings."""
    seconds = duration * chance.uniform(0.5, 1.5)
    script: list[Snapshot | AudioSection] = [frame(chance.uniform(0, seconds)) for _ in range(3)]
    fate = chance.random()
    if fate < 0.1:
        label, verdict = chance.choice(LABELS), chance.choice(list(Verdict)[1:])
        script.append(frame(chance.uniform(0, seconds), label, score=95, result=verdict))
    elif fate < 0.15:
        script.append(sound(chance.uniform(0, seconds), "Ads", score=91, text="buy now"))
    failure = ("ResourceDownloadFailed", "unreadable") if fate > 0.98 else None
    return emulator.add_job(data_id=name, duration=seconds, script=script, failure=failure)
