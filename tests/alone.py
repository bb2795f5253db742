"""Use the installed core where there is no extra: ``python -I -W error tests/alone.py``."""

from __future__ import annotations

import asyncio
from importlib.metadata import entry_points, version
from importlib.util import find_spec

import ci_live_audit
from ci_live_audit.testing import Emulator, VirtualTimeLoop

EXTRAS = ("click", "httpx2", "jinja2", "opentelemetry", "pytest", "redis", "rich", "uvicorn")


async def main() -> None:
    """Moderate a stream of the emulator from its submission to its end."""
    emulator = Emulator()
    async with emulator.client() as client:
        submitted = await client.submit("rtmp://live.example.com/app/room7")
        job = await client.wait(submitted.job_id)
        assert job.state == ci_live_audit.JobState.SUCCESS, job


assert [name for name in EXTRAS if find_spec(name)] == []
assert version("ci-live-audit") == ci_live_audit.__version__
assert "ci_live_audit" in entry_points(group="pytest11").names
for name in dir(ci_live_audit):
    getattr(ci_live_audit, name)
with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
    runner.run(main())
