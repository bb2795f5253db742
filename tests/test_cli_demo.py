"""`demo`: three dozen streams from submission to the last finding, and what may go wrong."""

from __future__ import annotations

import asyncio
import re
import subprocess
from io import StringIO
from typing import Any

import pytest
from click.testing import CliRunner, Result
from proofs import IN_FULL
from rich.console import Console
from terminal import PATIENCE, SCRIPT, Terminal, start

from ci_live_audit import ConfigurationError, Verdict
from ci_live_audit.cli import demo
from ci_live_audit.cli.commands import cli
from ci_live_audit.testing import Emulator, Fault, frame, sound

pytestmark = pytest.mark.waits  # for sockets

ROW = re.compile(r"([\w-]+) +av\w{6} (\w+) +(\w+) +(\d+) +(\d+) *(.*?) *")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> dict[str, demo.Script]:
    """Streams of half a second, two of them to begin with."""
    streams: dict[str, demo.Script] = {"one": (0.5, []), "two": (0.5, [])}
    monkeypatch.setattr(demo, "STREAMS", streams)
    monkeypatch.setattr(demo, "INTERVAL", 0.2)
    return streams


def run() -> Result:
    """The demo in this process."""
    return CliRunner().invoke(cli, ["demo"], catch_exceptions=False)


def test_the_demo_in_a_pipe() -> None:
    """A line for each change, then the table with every stream, then the summary."""
    done = subprocess.run([SCRIPT, "demo"], check=True, capture_output=True, timeout=PATIENCE)
    assert b"\x1b" not in done.stdout
    lines = done.stdout.decode().splitlines()
    assert "late-night: Auditing" in lines
    assert "late-night: Porn in a Snapshot" in lines
    assert "market: Ads in an AudioSection" in lines
    rows = [found for line in lines if (found := ROW.fullmatch(line))]
    assert {row[1] for row in rows} == set(demo.STREAMS)
    assert len(rows) == 36
    states = [row[2] for row in rows]
    assert (states.count("Cancelled"), states.count("Failed")) == (8, 1)
    assert states.count("Success") == 27
    assert re.fullmatch(
        r"36 streams, 8 cancelled, \d+ requests in [\d.]+ s \([\d.]+ a second; the quota is 20\), "
        r"\d+ refused by the quota\.",
        lines[-1],
    )
    worth_a_look = [row[1] for row in rows if row[6]]
    assert worth_a_look == [row[1] for row in rows][-len(worth_a_look) :]
    assert done.stderr == b""


@pytest.mark.skipif(not IN_FULL, reason="the demo as a whole runs on a terminal in full only")
def test_the_demo_on_a_terminal() -> None:
    """A bar and the latest findings while it runs; then the table, with what is bad in red."""
    with Terminal([SCRIPT, "demo"]) as terminal:
        terminal.read_until("0 of 36 ended")
        assert not terminal.cursor_visible
        assert terminal.finish() == 0
        screen = terminal.screen
        assert len([line for line in screen if ROW.fullmatch(line)]) == 36
        assert not any("of 36 ended" in line for line in screen)
        assert b"\x1b[1;31m" in terminal.shown
        assert "36 streams, 8 cancelled, " in "".join(screen)
        assert terminal.cursor_visible
        assert terminal.unchanged


def test_ctrl_c_on_a_terminal() -> None:
    """It ends with the code that shells expect, and the terminal is as it was."""
    with Terminal([SCRIPT, "demo"]) as terminal:
        terminal.read_until("of 36 ended")
        terminal.press("\x03")
        assert terminal.finish() == 130
        assert b"Traceback" not in terminal.shown
        assert terminal.cursor_visible
        assert terminal.unchanged


@pytest.mark.parametrize("lines", [1, 3])
def test_the_reader_goes_away(lines: int) -> None:
    """As with ``| head``: no traceback, and the code that says why."""
    with start(SCRIPT, "demo", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in range(lines):
            process.stdout.readline()
        process.stdout.close()
        assert process.wait(PATIENCE) == 141
        assert process.stderr.read() == b""


async def test_what_is_shown_while_it_runs(short: dict[str, demo.Script]) -> None:
    """A terminal is shown states and findings as they come, and no lines for good."""
    del short["two"]
    short["one"] = (30, [frame(0.2, "Porn")])
    shown = StringIO()
    console = Console(file=shown, force_terminal=True, width=100, color_system="truecolor")
    assert await demo.Demo(console).run() == 0
    for text in ("one: Submitted", "one: Auditing", "one: Cancelled", "one: Porn in a Snapshot"):
        assert text in shown.getvalue()
    assert "1 of 1 ended" in shown.getvalue() or "0 of 1 ended" in shown.getvalue()


def test_every_kind_of_finding(short: dict[str, demo.Script]) -> None:
    """Sensitive ones are cancelled, suspected ones to be reviewed, what is normal is no line."""
    short["one"] = (30, [sound(0.2, "Ads", score=91)])
    short["two"] = (0.5, [frame(0.1, "Porn", score=60, result=Verdict.SUSPECTED), frame(0.2)])
    short["three"] = (0.5, [frame(0.1)])
    result = run()
    assert result.exit_code == 0
    assert "one: Ads in an AudioSection\n" in result.output
    assert "two: Porn in a Snapshot\n" in result.output
    rows = {
        found[1]: found.groups()[1:]
        for found in map(ROW.fullmatch, result.output.splitlines())
        if found
    }
    assert rows["one"][4:] == ("cancelled by us",)
    assert rows["two"][4:] == ("to be reviewed",)
    assert rows["three"] == ("Success", "Normal", "1", "0", "")


def test_a_stream_that_fails(
    short: dict[str, demo.Script], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why it failed stands beside it."""
    monkeypatch.setattr(demo, "FAILURES", {"one": ("ResourceDownloadFailed", "unreadable")})
    result = run()
    assert result.exit_code == 0
    assert re.search(r"one +av\w{6} Failed .* unreadable\n", result.output)


def test_a_stream_that_cannot_be_submitted(
    short: dict[str, demo.Script], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told, and the others go on."""

    class Faulty(Emulator):
        def __init__(self) -> None:
            super().__init__()
            self.inject(Fault.reset(), operation="submit", times=1)

    monkeypatch.setattr(demo, "Emulator", Faulty)
    result = run()
    assert result.exit_code == 0
    assert re.search("(one|two): submit: ReadError", result.output)
    assert re.search("(one|two): Success", result.output)


def test_a_stream_that_is_lost(
    short: dict[str, demo.Script], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that the service forgets is told, and the others go on."""

    class Forgetful(Emulator):
        def __init__(self) -> None:
            super().__init__()
            self.lost: list[Any] = []

        def _submit(self, call: Any) -> Any:
            answer = super()._submit(call)
            if not self.lost:
                self.lost.append(self.jobs.popitem())
            return answer

    monkeypatch.setattr(demo, "Emulator", Forgetful)
    result = run()
    assert result.exit_code == 0
    assert "one: query of av" in result.output
    assert "two: Success" in result.output


def test_a_stream_that_cannot_be_cancelled(
    short: dict[str, demo.Script], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the cancelling said stands beside it, and nobody says that it was cancelled."""

    class Stubborn(Emulator):
        def __init__(self) -> None:
            super().__init__()
            self.inject(Fault.error(), operation="cancel")

    monkeypatch.setattr(demo, "Emulator", Stubborn)
    short["one"] = (2.0, [frame(0.3, "Porn")])
    result = run()
    assert result.exit_code == 0
    assert "one: cancel of av" in result.output
    assert "2 streams, 0 cancelled, " in result.output


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without uvicorn it says what to install."""

    class Unserved(Emulator):
        def serve(self, port: int = 0, host: str = "") -> None:  # type: ignore[override]
            raise ConfigurationError('pip install "ci-live-audit[emulator]"')

    monkeypatch.setattr(demo, "Emulator", Unserved)
    result = run()
    assert (result.exit_code, result.stderr) == (
        1,
        'error: pip install "ci-live-audit[emulator]"\n',
    )


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, asyncio.CancelledError])
def test_an_interrupt_has_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, interrupt: type[BaseException]
) -> None:
    """In whatever step it comes, it is no traceback but 130."""

    async def stopped(_: object) -> None:
        raise interrupt

    monkeypatch.setattr(demo.Demo, "run", stopped)
    assert run().exit_code == 130
