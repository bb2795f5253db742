"""What people see, as a whole: real terminals of three widths against reference screens.

``SCREENS=write`` writes the references anew; look at each before it is committed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest
from command_line import SCRIPT, Clock, served
from rich.cells import cell_len
from terminal import Terminal

from ci_live_audit import AudioSection, Snapshot, Verdict
from ci_live_audit.models import OcrResult, ReadOnly
from ci_live_audit.testing import Emulator, frame, sound

SCREENS = Path(__file__).parent / "screens"
#: When the jobs began.
BEGIN = datetime(2026, 11, 27, 21, 23, 8, tzinfo=UTC).timestamp()
#: Streams by their data ids.
TALK = "buy now, only today: https://shop.example.com/cheap \u6700\u540e\u4e00\u5929"
EVIL = "\x1b[2J\u202eevil\u200b\nroom9  Normal"


def with_keyword(snapshot: Snapshot, keyword: str) -> Snapshot:
    """Return a snapshot in whose text a keyword was found."""
    read = OcrResult(text=snapshot.text, keywords=(keyword,))
    hits = {name: attrs.evolve(scene, ocr_results=(read,)) for name, scene in snapshot.hits.items()}
    return attrs.evolve(snapshot, scenes=ReadOnly({**snapshot.scenes, **hits}))


SCRIPTS: dict[str, list[Snapshot | AudioSection]] = {
    "room7": [
        *(frame(60.0 * minute) for minute in range(46)),
        frame(68, "Porn", score=98, sub_label="SexBehavior"),
        frame(1500, "Porn", score=61, result=Verdict.SUSPECTED),
        with_keyword(frame(1505, "Ads", score=95, sub_label="Gambling", text=TALK), "only today"),
        sound(2000, "Ads", score=91, text="buy now"),
    ],
    "a-studio-with-a-very-long-name-of-its-own": [
        frame(5),
        frame(10, "Terrorism", score=100, text=EVIL),
    ],
    "\u623f\u95f4\u4e03": [frame(5), frame(7, "Ads", score=9, result=Verdict.SUSPECTED)],
    "chess": [frame(5), frame(6)],
    "broken": [frame(1)],
}


@pytest.fixture
def ids(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Serve streams that have ended, and one that was cancelled and has no name."""
    clock = Clock()
    emulator = Emulator(rate=1000, clock=clock, now=lambda: BEGIN + clock.seconds)
    for number, (name, script) in enumerate(SCRIPTS.items()):
        failed = (
            ("ResourceDownloadFailed", "the stream could not be read") if name == "broken" else None
        )
        emulator.add_job(
            f"av{number:032x}", duration=2830, data_id=name, script=script, failure=failed
        )
    last = emulator.add_job(f"av{5:032x}", duration=1e9, script=[frame(4, "Porn", score=77)])
    emulator.jobs[last].cancelled = 20.0
    clock.seconds = 2900
    with served(emulator) as environ:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        yield list(emulator.jobs)


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("command", ["query", "watch", "poll"])
def test_screens(ids: list[str], command: str, width: int) -> None:
    """Which stream was bad, when, and why; nothing wraps but what is to be copied."""
    with Terminal(
        [SCRIPT, command, *ids, "--utc"], columns=width, environment={"NO_COLOR": "1"}
    ) as terminal:
        assert terminal.finish() == 3
        screen = [_masked(line.rstrip()) for line in terminal.screen]
    path = SCREENS / f"{command}-{width}.txt"
    if os.environ.get("SCREENS") == "write":
        path.write_text("\n".join(screen), "utf-8")
    # Jobs are asked at the same time, and answered in any order.
    assert sorted(screen) == sorted(path.read_text("utf-8").split("\n"))
    assert all(cell_len(line) <= width for line in screen)


def _masked(line: str) -> str:
    """Return a line without what differs between runs."""
    line = re.sub(r"\d+ requests?", "N requests", line)
    return re.sub(r"\b(?!av)[0-9a-f]{32}\b", "0" * 32, line)
