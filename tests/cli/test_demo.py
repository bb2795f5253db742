"""`demo`: three dozen streams from submission to the last finding, and its errors."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import subprocess
import sys
from importlib.metadata import (
    PackageNotFoundError,
    distribution,
    packages_distributions,
    requires,
)
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from command_line import SCRIPT, run
from proofs import IN_FULL
from rich.console import Console
from terminal import PATIENCE, Terminal, start

from ci_live_audit import ConfigurationError, Verdict
from ci_live_audit.cli import demo
from ci_live_audit.testing import Emulator, Fault, frame, sound

pytestmark = pytest.mark.waits  # for sockets

ROW = re.compile(r"([\w-]+) +av\w{6} (\w+) +(?:([A-Z]\w*) +)?(\d+) +(\d+) *(.*?) *")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> dict[str, demo.Script]:
    """Shorten the demo to two streams of half a second."""
    streams: dict[str, demo.Script] = {"one": (0.5, []), "two": (0.5, [])}
    monkeypatch.setattr(demo, "STREAMS", streams)
    monkeypatch.setattr(demo, "INTERVAL", 0.2)
    return streams


@pytest.mark.skipif(not IN_FULL, reason="`nox -s demo` runs the demo; it is checked in full only")
def test_the_demo_in_a_pipe() -> None:
    """A pipe gets a line for each change, the table of all streams, and the summary."""
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
        r"\d+ throttled\.",
        lines[-2],
    )
    told = re.fullmatch(
        r"\d+ snapshots were here ([\d.]+) s after they were taken, at most [\d.]+ s, as the "
        r"service calls back\. Without that, polling every 2 s would see them 1 s late on "
        r"average, for (\d+) requests\.",
        lines[-1],
    )
    assert told is not None
    requests = re.search(r"(\d+) requests", lines[-2])
    assert requests is not None
    assert float(told[1]) < 1
    assert int(requests[1]) < int(told[2])
    with_remark = [row[1] for row in rows if row[6]]
    assert with_remark == [row[1] for row in rows][-len(with_remark) :]
    assert done.stderr == b""


@pytest.mark.skipif(not IN_FULL, reason="`nox -s demo` runs the demo; it is checked in full only")
def test_the_demo_on_a_terminal() -> None:
    """A terminal shows a bar and recent findings, then the table with sensitive jobs in red."""
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
    """Ctrl-C exits with 130 and restores the terminal."""
    with Terminal([SCRIPT, "demo"]) as terminal:
        terminal.read_until("of 36 ended")
        terminal.press("\x03")
        assert terminal.finish() == 130
        assert b"Traceback" not in terminal.shown
        assert terminal.cursor_visible
        assert terminal.unchanged


@pytest.mark.parametrize("lines", [1, 3])
def test_a_closed_pipe(lines: int) -> None:
    """When the reader closes the pipe, the demo exits with 141 and no traceback."""
    with start(SCRIPT, "demo", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in range(lines):
            process.stdout.readline()
        process.stdout.close()
        assert process.wait(PATIENCE) == 141
        assert process.stderr.read() == b""


async def test_the_live_view(short: dict[str, demo.Script]) -> None:
    """A terminal shows states and findings as they come."""
    del short["two"]
    short["one"] = (30, [frame(0.2, "Porn")])
    shown = StringIO()
    console = Console(file=shown, force_terminal=True, width=100, color_system="truecolor")
    assert await demo.Demo(console).run() == 0
    for text in ("one: (Submitted|Auditing)", "one: Cancelled", "one: Porn in a Snapshot"):
        assert re.search(text, shown.getvalue())
    assert "1 of 1 ended" in shown.getvalue() or "0 of 1 ended" in shown.getvalue()


def test_every_kind_of_finding(short: dict[str, demo.Script]) -> None:
    """Sensitive streams are cancelled, suspected ones need review, the others just end."""
    short["one"] = (30, [sound(0.2, "Ads", score=91)])
    short["two"] = (0.5, [frame(0.1, "Porn", score=60, result=Verdict.SUSPECTED), frame(0.2)])
    short["three"] = (0.5, [frame(0.1)])
    result = run("demo")
    assert result.exit_code == 0
    assert "one: Ads in an AudioSection\n" in result.output
    assert "two: Porn in a Snapshot\n" in result.output
    rows = {
        found[1]: found.groups()[1:]
        for found in map(ROW.fullmatch, result.output.splitlines())
        if found
    }
    assert rows["one"][4:] == ("cancelled by the demo",)
    assert rows["two"][4:] == ("needs review",)
    assert rows["three"] == ("Success", "Normal", "1", "0", "")


def test_a_failed_stream(short: dict[str, demo.Script], monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason of a failure is shown next to the stream, and no verdict that nobody knows."""
    monkeypatch.setattr(demo, "FAILURES", {"one": ("ResourceDownloadFailed", "unreadable")})
    result = run("demo")
    assert result.exit_code == 0
    assert re.search(r"one +av\w{6} Failed +\d +\d +unreadable\n", result.output)


def test_a_stream_that_cannot_be_submitted(
    short: dict[str, demo.Script], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed submission is shown, and the demo goes on with the other streams."""

    class Faulty(Emulator):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.inject(Fault.reset(), operation="submit", times=1)

    monkeypatch.setattr(demo, "Emulator", Faulty)
    result = run("demo")
    assert result.exit_code == 0
    assert re.search("(one|two): submit: ReadError", result.output)
    assert re.search("(one|two): Success", result.output)


def test_a_lost_job(short: dict[str, demo.Script], monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that the service loses is shown, and the demo goes on with the other streams."""

    class Forgetful(Emulator):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            first = not self.arrivals
            await super().__call__(scope, receive, send)
            if first:
                self.jobs.clear()

    monkeypatch.setattr(demo, "Emulator", Forgetful)
    result = run("demo")
    assert result.exit_code == 0
    assert "one: query of av" in result.output
    assert "two: Success" in result.output


def test_a_stream_that_cannot_be_cancelled(
    short: dict[str, demo.Script], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed cancellation is shown, and the stream does not count as cancelled."""

    class Stubborn(Emulator):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.inject(Fault.error(), operation="cancel")

    monkeypatch.setattr(demo, "Emulator", Stubborn)
    short["one"] = (2.0, [frame(0.3, "Porn")])
    result = run("demo")
    assert result.exit_code == 0
    assert "one: cancel of av" in result.output
    assert "2 streams, 0 cancelled, " in result.output


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without uvicorn, the demo says what to install."""

    class Unserved(Emulator):
        def serve(self, port: int = 0, host: str = "") -> None:  # type: ignore[override]
            raise ConfigurationError('pip install "ci-live-audit[emulator]"')

    monkeypatch.setattr(demo, "Emulator", Unserved)
    result = run("demo")
    assert (result.exit_code, result.stderr) == (
        1,
        'error: pip install "ci-live-audit[emulator]"\n',
    )


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, asyncio.CancelledError])
def test_an_interrupt_exits_with_130(
    monkeypatch: pytest.MonkeyPatch, interrupt: type[BaseException]
) -> None:
    """An interrupt exits with 130 and no traceback, whichever exception it raises."""

    async def stopped(_: object) -> None:
        raise interrupt

    monkeypatch.setattr(demo.Demo, "run", stopped)
    assert run("demo").exit_code == 130


# What the extra of the command line installs


def closure(extra: str) -> set[str]:
    """Return the distributions that an extra installs, with all that they need."""
    found, names = set[str](), [("ci-live-audit", extra)]
    while names:
        name, of = names.pop()
        if name in found:
            continue
        found.add(name)
        for line in requires(name) or []:
            needed, _, marker = line.partition(";")
            if "extra" not in marker or f"extra == '{of}'" in marker.replace('"', "'"):
                base = re.split(r"[^A-Za-z0-9_.-]", needed.strip(), maxsplit=1)[0]
                with contextlib.suppress(PackageNotFoundError):  # of another system
                    names.append((distribution(base).metadata["Name"].lower(), ""))
    return found


ALONE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

absent = set(sys.argv.pop(1).split())
sys.meta_path.insert(0, Absent())
from ci_live_audit.cli import demo, main
demo.STREAMS = {"one": (0.3, [])}
main()
"""


@pytest.mark.parametrize("command", ["demo", "emulate", "listen"])
def test_the_extra_of_the_command_line_is_enough(command: str, tmp_path: Path) -> None:
    """`pip install "ci-live-audit[cli]"` has all that a command needs to try things out."""
    installed = closure("cli")
    assert {"click", "httpx", "rich", "uvicorn"} <= installed
    assert "jinja2" not in installed
    absent = [
        module
        for module, names in packages_distributions().items()
        if not {name.lower() for name in names} & installed
    ]
    arguments = {
        "emulate": ["--port", "0", "--jobs", "1"],
        "listen": ["--port", "0", "--secret-file", str(tmp_path / "secret")],
    }
    command_line = [sys.executable, "-I", "-c", ALONE, " ".join(absent), command]
    with start(
        *(*command_line, *arguments.get(command, [])),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if command in arguments:
            assert b"is listening at http://127.0.0.1:" in process.stderr.readline() + (
                process.stderr.readline()
            )
            process.send_signal(signal.SIGINT)
        shown = process.stdout.read().decode() + process.stderr.read().decode()
        code = process.wait(PATIENCE)
    assert code == 0, shown
