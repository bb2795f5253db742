"""The command line, in a process and a terminal of its own."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import pty
import re
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from ci_live_audit import ConfigurationError, cli
from ci_live_audit.cli import demo as demo_module
from ci_live_audit.cli.commands import cli as commands
from ci_live_audit.testing import Emulator, Fault, frame


@pytest.fixture
def anyio_backend() -> str:
    """Real time: the demo serves on a socket."""
    return "asyncio"


SCRIPT = Path(sys.executable).parent / "ci-live-audit"


def test_the_script_is_installed_and_helps() -> None:
    """The console script runs, and says what the demo is."""
    shown = subprocess.run([SCRIPT, "--help"], check=True, capture_output=True, text=True)
    assert "demo" in shown.stdout
    assert "Tencent Cloud CI" in shown.stdout


def test_the_demo_with_its_output_in_a_pipe() -> None:
    """Without a terminal: a line for each change, then the table and the summary."""
    result = CliRunner().invoke(commands, ["demo"], catch_exceptions=False)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert "late-night: Auditing, Porn" in lines
    assert "late-night: Cancelled, Porn" in lines
    rows = [line for line in lines if re.match(r"[\w-]+ +av\w{6} ", line)]
    assert len(rows) == len(demo_module.STREAMS) == 12
    assert sum("Cancelled" in row for row in rows) == 4
    assert sum("Success" in row for row in rows) == 7
    assert sum("Failed" in row for row in rows) == 1
    summary = " ".join(lines[-2:])
    assert re.search(r"12 streams, 4 cancelled, \d+ requests in \d+\.\d s", summary)
    assert "refused by the quota" in summary


def test_the_demo_on_a_terminal() -> None:
    """On a terminal the table is drawn again and again, and flagged streams are red."""
    main, other = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    with subprocess.Popen([SCRIPT, "demo"], stdout=other, stdin=other, env=environment) as process:
        os.close(other)
        shown = b""
        while chunk := _read(main):
            shown += chunk
        assert process.wait() == 0
    os.close(main)
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())
    assert text.count("late-night") > 10
    assert b"\x1b[1;31m" in shown
    assert "12 streams, 4 cancelled" in text


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # what a terminal says when nobody is left at its other end
        return b""


async def test_the_table_is_drawn_while_streams_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a terminal is shown has every state a stream goes through, and no lines between."""
    monkeypatch.setattr(demo_module, "STREAMS", {"one": (30, [frame(0.2, "Porn")])})
    monkeypatch.setattr(demo_module, "INTERVAL", 0.2)
    shown = StringIO()
    await demo_module.Demo(Console(file=shown, force_terminal=True, width=100)).run()
    assert "one: " not in shown.getvalue()
    for word in ("Submitted", "Auditing", "Cancelled", "Porn"):
        assert word in shown.getvalue()


def test_ctrl_c_ends_the_demo() -> None:
    """An interrupt ends it at once with the code that shells expect."""
    with subprocess.Popen(
        [SCRIPT, "demo"],
        stdout=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background has interrupts ignored, and so would the child.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
        assert process.returncode == 130


@pytest.mark.parametrize(("flag", "loggers"), [("-v", {"ci_live_audit"}), ("-vv", set())])
def test_verbose_goes_to_standard_error(flag: str, loggers: set[str]) -> None:
    """Once for the attempts, twice for everything; standard output is as without it."""
    result = subprocess.run(
        [SCRIPT, flag, "demo"], check=True, capture_output=True, text=True, timeout=60
    )
    assert "12 streams, 4 cancelled" in result.stdout
    assert "Attempt(" not in result.stdout
    told = {line.split(" ")[2].partition(".")[0] for line in result.stderr.splitlines()}
    assert "Attempt(operation='query'" in result.stderr
    assert told == loggers or {"ci_live_audit", "httpcore", "asyncio"} <= told


def test_verbose_sets_up_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this library alone, or of everything."""
    set_up: list[object] = []
    monkeypatch.setattr(demo_module.Demo, "run", lambda _: asyncio.sleep(0))
    monkeypatch.setattr(logging.Logger, "setLevel", lambda logger, _: set_up.append(logger.name))
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    for flag in ("-v", "-vv"):
        assert CliRunner().invoke(commands, [flag, "demo"]).exit_code == 0
    assert [name for name in set_up if name in {"ci_live_audit", "root"}] == [
        "ci_live_audit",
        "root",
    ]


def test_an_interrupt_has_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever step it comes, an interrupt is no traceback but 130."""

    async def run(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo_module.Demo, "run", run)
    assert CliRunner().invoke(commands, ["demo"]).exit_code == 130


def test_an_error_in_one_stream_does_not_end_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that cannot be submitted is told, and the others go on."""

    class Faulty(Emulator):
        def __init__(self) -> None:
            super().__init__()
            self.inject(Fault.reset(), operation="submit", times=1)

    monkeypatch.setattr(demo_module, "Emulator", Faulty)
    monkeypatch.setattr(demo_module, "STREAMS", {"one": (0.5, []), "two": (0.5, [])})
    result = CliRunner().invoke(commands, ["demo"], catch_exceptions=False)
    assert result.exit_code == 0
    assert re.search("(one|two): submit: ReadError", result.output)
    assert re.search("(one|two): Success", result.output)


def test_a_stream_that_is_lost_does_not_end_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that the service forgets is told, and the others go on."""

    class Forgetful(Emulator):
        def _submit(self, call: Any) -> Any:
            answer = super()._submit(call)
            self.jobs.pop(next(reversed(self.jobs))) if len(self.jobs) == 1 else None
            return answer

    monkeypatch.setattr(demo_module, "Emulator", Forgetful)
    monkeypatch.setattr(demo_module, "STREAMS", {"one": (0.5, []), "two": (0.5, [])})
    result = CliRunner().invoke(commands, ["demo"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "one: query of av" in result.output


def test_a_stream_that_cannot_be_cancelled_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a cancel says when it fails stands beside the stream."""

    class Stubborn(Emulator):
        def __init__(self) -> None:
            super().__init__()
            self.inject(Fault.error(), operation="cancel")

    monkeypatch.setattr(demo_module, "Emulator", Stubborn)
    monkeypatch.setattr(demo_module, "STREAMS", {"one": (2.0, [frame(0.3, "Porn")])})
    result = CliRunner().invoke(commands, ["demo"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "one: cancel of av" in result.output


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without uvicorn the demo says what to install."""

    class Unserved(Emulator):
        def serve(self, port: int = 0, host: str = "") -> None:  # type: ignore[override]
            raise ConfigurationError('pip install "ci-live-audit[emulator]"')

    monkeypatch.setattr(demo_module, "Emulator", Unserved)
    result = CliRunner().invoke(commands, ["demo"])
    assert (result.exit_code, result.stderr) == (
        1,
        'error: pip install "ci-live-audit[emulator]"\n',
    )


def test_without_the_extra_the_command_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where click is missing, the script prints the pip command and fails."""
    monkeypatch.setitem(sys.modules, "click", None)
    monkeypatch.delitem(sys.modules, "ci_live_audit.cli.commands")
    assert importlib.util.find_spec("ci_live_audit.cli.commands")
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    assert 'click is missing; the command line needs: pip install "ci-live-audit[cli]"' in (
        capsys.readouterr().err
    )


def test_main_runs_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry point hands over to the commands."""
    monkeypatch.setattr(sys, "argv", ["ci-live-audit", "--version"])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
