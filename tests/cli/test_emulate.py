"""`emulate` in this process: what it does beside serving jobs."""

from __future__ import annotations

import asyncio
import re

import pytest
from servers import answering, client_for, eventually, serving

from ci_live_audit import Verdict
from ci_live_audit.cli.emulate import ROOM, add_room, emulate
from ci_live_audit.cli.output import Exit, Output
from ci_live_audit.testing import Emulator


@pytest.mark.waits
@pytest.mark.parametrize("callback", [True, False])
async def test_callback_urls_of_this_machine_are_called(
    capsys: pytest.CaptureFixture[str], *, callback: bool
) -> None:
    """The summary counts the callbacks, if there were any."""
    options = {"host": "127.0.0.1", "port": 0, "rate": 20, "jobs": 0, "duration": 1, "seed": 0}
    serves = asyncio.create_task(emulate(Output(), **options))  # type: ignore[arg-type]
    shown = ""

    def url() -> str | None:
        nonlocal shown
        shown += capsys.readouterr().err
        found = re.search(r"CI_LIVE_AUDIT_ENDPOINT=(\S+)\n", shown)
        return found and found[1]

    assert await eventually(lambda: url() is not None)
    async with serving(answering()) as hook, client_for(url() or "") as client:
        await client.submit("rtmp://a/b", callback=f"{hook.url}/ci" if callback else None)
        assert await eventually(lambda: len(hook.requests) == callback)
        serves.cancel()
        assert await serves == Exit.OK
    summary = capsys.readouterr().err
    callbacks = r"; 1 callback, [01] not taken" if callback else ""
    assert re.fullmatch(rf"1 request, 0 throttled{callbacks}\n", summary)


async def test_the_stream_of_the_manual_is_not_clean() -> None:
    """Whoever submits it sees something bad within half a minute; other streams are clean."""
    emulator = Emulator()
    add_room(emulator)
    async with emulator.client() as client:
        jobs = [await client.submit(url) for url in (ROOM, f"{ROOM}8")]
        bad, clean = [await client.wait(job.job_id) for job in jobs]
    assert (bad.result, bad.label) == (Verdict.SENSITIVE, "Porn")
    assert clean.result == Verdict.NORMAL
