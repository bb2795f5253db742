"""The command line in a terminal: what is shown, and the effect of keys and of closing it."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from command_line import SCRIPT, served
from terminal import PATIENCE, Terminal

from ci_live_audit import Checkpoint, Verdict
from ci_live_audit.testing import Emulator, frame

COLOURS = re.compile(rb"\x1b\[(?:\d+;)*(?:[34][0-7]|[34]8;[\d;]+|9[0-7])m")


@attrs.frozen
class Service:
    """An emulator with jobs that have ended, and one that never ends."""

    emulator: Emulator
    ended: list[str]
    endless: str

    def poll(self, *options: str) -> list[str]:
        """Return the command that follows all jobs."""
        return [SCRIPT, "poll", *options, "--interval", "0.2", *self.ended, self.endless]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """Serve thirty jobs that have ended, three of them flagged, and one that never ends."""
    emulator = Emulator(rate=1000, clock=time.monotonic)
    ended = [emulator.add_job(duration=0.01) for _ in range(27)]
    for verdict in (Verdict.SENSITIVE, Verdict.SENSITIVE, Verdict.SUSPECTED):
        script = [frame(0.001, "Porn", score=90, result=verdict)]
        ended.append(emulator.add_job(duration=0.01, script=script))
    endless = emulator.add_job(duration=math.inf)
    with served(emulator) as environ:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        yield Service(emulator, ended, endless)


def bars(screen: list[str]) -> list[int]:
    """Return the numbers of the lines with a progress bar."""
    return [number for number, line in enumerate(screen) if "━" in line]


def count(screen: list[str], job_id: str) -> int:
    """Return the number of lines that begin with an id."""
    return sum(line.startswith(job_id) for line in screen)


def test_results_go_above_the_bar(service: Service) -> None:
    """On one terminal every result has its line, with the bar below."""
    with Terminal(service.poll()) as terminal:
        terminal.read_until("30 of 31, 3 flagged, 0 errors, at least 0:00")
        screen = terminal.screen
        assert [count(screen, job_id) for job_id in service.ended] == [1] * 30
        results = [number for number, line in enumerate(screen) if line.startswith("av")]
        assert bars(screen) == [max(results) + 1]
        assert not terminal.cursor_visible
        terminal.press("\x03")
        assert terminal.finish() == 130
        assert bars(terminal.screen) == []


def test_ctrl_c_stops_cleanly(service: Service) -> None:
    """Ctrl-C prints the summary and restores the terminal."""
    with Terminal(service.poll()) as terminal:
        terminal.read_until("30 of 31")
        terminal.press("\x03")
        assert terminal.finish() == 130
        text = "".join(terminal.screen)
        assert "30 done, 2 sensitive, 1 suspected, 0 errors, 0 timed out, 1 open" in text
        assert "Traceback" not in text
        assert terminal.cursor_visible
        assert terminal.unchanged


def test_an_interrupted_cleanup_shows_the_cursor() -> None:
    """A second Ctrl-C while the progress bar is being removed leaves no hidden cursor."""
    program = """
import asyncio, time
import rich.console
from ci_live_audit.cli.session import run

async def main():
    try:
        rich.console.Console().show_cursor(False)
        print("hidden", flush=True)
        await asyncio.sleep(3600)
    finally:
        print("removing", flush=True)
        time.sleep(3600)

run(main)
"""
    with Terminal([sys.executable, "-c", program]) as terminal:
        terminal.read_until("hidden")
        assert not terminal.cursor_visible
        terminal.press("\x03")
        terminal.read_until("removing")
        terminal.press("\x03")
        assert terminal.finish() == 130
        assert terminal.cursor_visible


@pytest.mark.parametrize("after", [0, 0.02, 0.05, 0.1, 0.2, 0.4, None])
def test_ctrl_c_held_down(service: Service, after: float | None) -> None:
    """Ctrl-C again and again, from any instant on, leaves no traceback and one exit code."""
    program = """
from ci_live_audit.cli import interrupts, main
interrupts.prepare()
print("ready", flush=True)
main()
"""
    with Terminal([sys.executable, "-c", program, *service.poll()[1:]]) as terminal:
        terminal.read_until("ready" if after is not None else "30 of 31")
        time.sleep(after or 0)
        while terminal.process.poll() is None:
            # Not by the key, with which a terminal throws away what it has not shown yet.
            terminal.process.send_signal(signal.SIGINT)
            time.sleep(0.0002)
        assert terminal.finish() == 130, terminal.shown
        for trace in (b"Traceback", b"xception", b"Aborted"):
            assert trace not in terminal.shown
        assert terminal.cursor_visible
        assert terminal.unchanged


def test_ctrl_c_twice_at_once(service: Service) -> None:
    """Two Ctrl-C at once leave no traceback and restore the terminal."""
    with Terminal(service.poll()) as terminal:
        terminal.read_until("30 of 31")
        terminal.press("\x03\x03")
        assert terminal.finish() == 130
        assert b"Traceback" not in terminal.shown
        assert terminal.cursor_visible
        assert terminal.unchanged


def test_a_second_ctrl_c_ends_a_stuck_cleanup() -> None:
    """A second Ctrl-C ends a command whose cleanup hangs."""
    program = """
import asyncio
from ci_live_audit.cli.session import run

async def main():
    try:
        print("started", flush=True)
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        print("cleaning", flush=True)
        await asyncio.sleep(3600)

run(main)
"""
    with Terminal([sys.executable, "-c", program]) as terminal:
        terminal.read_until("started")
        terminal.press("\x03")
        terminal.read_until("cleaning")
        terminal.press("\x03")
        assert terminal.finish() == 130, terminal.shown
        assert b"Traceback" not in terminal.shown


def test_results_in_a_pipe_and_the_bar_on_the_terminal(service: Service) -> None:
    """JSON goes to the pipe alone, the bar to the terminal alone."""
    with Terminal(service.poll(), stdout=subprocess.PIPE) as terminal:
        terminal.read_until("30 of 31, 3 flagged")
        terminal.press("\x03")
        assert terminal.finish() == 130
        outcomes = [json.loads(line) for line in terminal.piped.splitlines()]
        assert sorted(outcome["job_id"] for outcome in outcomes) == sorted(service.ended)
        assert b"Success" not in terminal.shown
        assert terminal.cursor_visible


def test_json_on_a_terminal_goes_above_the_bar(service: Service) -> None:
    """Every JSON line on a terminal is complete, above the bar."""
    with Terminal(service.poll("-o", "json"), columns=20000) as terminal:
        terminal.read_until("30 of 31, 3 flagged")
        terminal.press("\x03")
        assert terminal.finish() == 130
        lines = [json.loads(line) for line in terminal.screen if line.startswith("{")]
        assert sorted(line["job_id"] for line in lines) == sorted(service.ended)


def test_a_closed_pipe_restores_the_terminal(service: Service) -> None:
    """A closed pipe exits with 141, prints no error and restores the terminal."""
    with Terminal(service.poll(), stdout=subprocess.PIPE) as terminal:
        assert terminal.process.stdout is not None
        terminal.process.stdout.readline()
        terminal.process.stdout.close()
        service.emulator.jobs[service.endless].cancelled = time.monotonic()
        assert terminal.finish() == 141
        assert b"Traceback" not in terminal.shown
        assert b"rror:" not in terminal.shown
        assert terminal.cursor_visible


def test_log_lines_go_above_the_bar(service: Service) -> None:
    """With -v every attempt is logged above the only bar."""
    command = [SCRIPT, "-v", *service.poll()[1:]]
    with Terminal(command, stdout=subprocess.PIPE) as terminal:
        terminal.read_until("30 of 31, 3 flagged")
        screen = terminal.screen
        text = "".join(screen)
        assert all(
            text.count(f"query of {job_id}, attempt 1: 200 in ") == 1 for job_id in service.ended
        )
        assert bars(screen) == [len(screen) - 1]


def test_without_a_terminal_lines_are_plain(service: Service) -> None:
    """Without a terminal no escape codes are printed."""
    service.emulator.jobs[service.endless].cancelled = time.monotonic()
    command = service.poll("-o", "table")
    done = subprocess.run(
        command, capture_output=True, check=False, timeout=PATIENCE, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 3
    assert done.stdout.count(b"\n") == 32  # the header, too
    assert b"\x1b" not in done.stdout + done.stderr
    assert b"31 done, 2 sensitive, 1 suspected, 0 errors, 0 timed out" in done.stderr


def test_a_dumb_terminal_gets_plain_lines(service: Service) -> None:
    """A dumb terminal gets no bar."""
    with Terminal(service.poll(), environment={"TERM": "dumb"}) as terminal:
        terminal.read_until("Suspected")
        terminal.press("\x03")
        assert terminal.finish() == 130
        assert b"\x1b" not in terminal.shown


@pytest.mark.parametrize("no_color", [True, False])
def test_no_color_is_obeyed(service: Service, no_color: bool) -> None:
    """Flagged results are coloured unless NO_COLOR is set."""
    environment = {"NO_COLOR": "1"} if no_color else {}
    with Terminal(service.poll(), environment=environment) as terminal:
        terminal.read_until("30 of 31")
        assert bool(COLOURS.search(terminal.shown)) != no_color
        assert b"Sensitive" in terminal.shown


def test_resizing_the_terminal(service: Service) -> None:
    """The bar adapts to the new size, and no result is lost."""
    with Terminal(service.poll(), columns=120) as terminal:
        terminal.read_until("30 of 31, 3 flagged, 0 errors, at least")
        terminal.resize(40, rows=5)
        terminal.read_until("…")  # the line is too long for it
        terminal.resize(100, rows=40)
        terminal.read_until("30 of 31, 3 flagged, 0 errors, at least")
        terminal.press("\x03")
        assert terminal.finish() == 130
        assert all(terminal.shown.count(job_id.encode()) == 1 for job_id in service.ended)
        assert terminal.cursor_visible


def test_closing_the_terminal(service: Service, tmp_path: Path) -> None:
    """The process ends with its terminal; the checkpoint has every outcome."""
    path = tmp_path / "checkpoint"
    with Terminal(service.poll("--checkpoint", str(path))) as terminal:
        terminal.read_until("30 of 31")
        terminal.hang_up()
        assert terminal.process.wait(PATIENCE) == -signal.SIGHUP
    with Checkpoint(path) as checkpoint:
        assert checkpoint.answered == 30
        assert checkpoint.open == (service.endless,)


def test_poll_on_a_terminal_needs_ids() -> None:
    """Without ids on a terminal, poll says how to pass them and exits."""
    with Terminal([SCRIPT, "poll"]) as terminal:
        assert terminal.finish() == 2
        text = "".join(terminal.screen)
        for problem in ("no job ids: pass some", "bucket: pass --bucket", "region: pass --region"):
            assert f"Error: {problem}" in text


def test_the_status_of_wait_is_erased(service: Service) -> None:
    """`wait` shows a moving status line, and erases it at the end."""
    command = [SCRIPT, "wait", service.endless, "--interval", "0.2"]
    with Terminal(command) as terminal:
        terminal.read_until(f"waiting for {service.endless} to end")
        service.emulator.jobs[service.endless].cancelled = time.monotonic()
        assert terminal.finish() == 0
        assert not any("waiting for" in line for line in terminal.screen)
        assert terminal.cursor_visible


@pytest.mark.parametrize("key", ["SIGINT", "SIGTERM"])
def test_a_watch_shows_how_far_it_is(service: Service, key: str) -> None:
    """A line at the bottom, below all findings; in its place, in the end, a summary."""
    jobs = [*service.ended[-3:], service.endless]
    with Terminal([SCRIPT, "watch", *jobs, "--interval", "30"]) as terminal:
        terminal.read_until("next look in 2")
        terminal.read_until("1 open, 3 flagged, 4 requests, last asked ")
        screen = terminal.screen
        assert screen[0].split() == ["TIME", "VERDICT", "SCENE", "SCORE", "STREAM", "DETAILS"]
        assert sum(" Success " in line for line in screen) == 3
        assert "Auditing" not in "".join(screen)
        assert screen[-1].startswith("1 open")
        assert not terminal.cursor_visible
        if key == "SIGINT":
            terminal.press("\x03")
        else:
            terminal.process.terminate()
        assert terminal.finish() == 130
        text = "\n".join(terminal.screen)
        assert "last asked" not in text
        assert "3 done, 2 sensitive, 1 suspected, 0 errors, 0 timed out, 1 open; 4 requests" in text
        assert all(
            f"job {job_id}" in text.replace("\n", " ").replace("  ", " ") for job_id in jobs[:3]
        )
        assert terminal.cursor_visible
        assert terminal.unchanged


def test_messages_go_above_the_line(service: Service) -> None:
    """What is cancelled is said on a line of its own."""
    live = service.emulator.add_job(
        duration=math.inf, data_id="room7", script=[frame(0.001, "Porn", score=90)]
    )
    with Terminal(
        [SCRIPT, "watch", live, service.endless, "--cancel", "--interval", "1"]
    ) as terminal:
        terminal.read_until("1 open, 1 flagged")
        assert f"cancelled by watch: {live} (room7)" in terminal.screen
        assert terminal.screen[-1].startswith("1 open")


def test_pictures_can_be_opened(service: Service) -> None:
    """A terminal that knows links gets the address of the picture, and no other does."""
    command = [SCRIPT, "query", service.ended[-1]]
    link = re.compile(rb"\x1b\]8;id=\d+;https://[!-~]+/0\.jpg\?[!-~]+\x1b\\[^\n]*Porn")
    with Terminal(command) as terminal:
        assert terminal.finish() == 3
        assert link.search(terminal.shown)
    done = subprocess.run([*command, "-o", "table"], capture_output=True, check=False)
    assert b"https" not in done.stdout
    with Terminal(command, environment={"TERM": "dumb"}) as terminal:
        assert terminal.finish() == 3
        assert b"https" not in terminal.shown


@pytest.mark.parametrize("piped", [False, True])
def test_results_of_wait_are_not_mixed_with_its_status(service: Service, *, piped: bool) -> None:
    """Each result goes to standard output, whole, while the status line is on the terminal."""
    jobs = service.ended[:3]
    command = [SCRIPT, "wait", *jobs, service.endless, "--interval", "0.2", "-o", "json"]
    stdout = subprocess.PIPE if piped else None
    with Terminal(command, columns=20_000, stdout=stdout) as terminal:
        while not all(job_id.encode() in terminal.shown + terminal.piped for job_id in jobs):
            terminal.read_until("waiting for 4 jobs to end")
        terminal.read_until("waiting for 4 jobs to end")  # so the last line is whole
        terminal.press("\x03")
        assert terminal.finish() == 130
        lines = terminal.piped.decode().splitlines() if piped else terminal.screen
        found = [json.loads(line) for line in lines if line.startswith("{")]
        assert sorted(line["job_id"] for line in found) == sorted(jobs)
        assert not piped or b'"job_id"' not in terminal.shown


def test_a_dumb_terminal_is_told_what_is_waited_for(service: Service) -> None:
    """Where no line can be shown, it is said."""
    command = [SCRIPT, "wait", service.ended[0]]
    with Terminal(command, environment={"TERM": "dumb"}) as terminal:
        assert terminal.finish() == 0
        assert terminal.shown.startswith(f"waiting for {service.ended[0]} to end".encode())


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_standard_streams_may_be_closed(service: Service, closed: str) -> None:
    """A standard stream that is closed at the start counts as empty."""
    script = f'exec "$0" poll {service.ended[0]} {closed}'
    done = subprocess.run(
        ["/bin/sh", "-c", script, SCRIPT],
        capture_output=True,
        check=False,
        timeout=PATIENCE,
        env=os.environ,
    )
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    assert bool(done.stdout) == (closed != ">&-")
    assert bool(done.stderr) == (closed != "2>&-")


@pytest.mark.parametrize(
    ("command", "encoding"),
    [*((command, "utf-8") for command in ("query", "wait", "watch", "poll")), ("poll", "cp1252")],
)
def test_json_on_a_terminal(service: Service, command: str, encoding: str) -> None:
    """Control characters of a text are escaped on a terminal, whatever it can show."""
    text = "\x9b31m\u202e\u8272"
    job_id = service.emulator.add_job(duration=0.01, script=[frame(0, "Porn", text=text)])
    arguments = [SCRIPT, command, job_id, "-o", "json"]
    environment = {"PYTHONIOENCODING": encoding}
    with Terminal(arguments, columns=10_000, environment=environment) as terminal:
        assert terminal.finish() == 3
        shown = terminal.shown.decode(encoding)
    assert "\\u009b31m\\u202e" in shown
    assert ("\u8272" in shown) == (encoding == "utf-8")
    codes = r"\x1b\[[0-9;?]*[mKhlAG]|[\r\n]|\\u28.."  # and dots of a spinner
    assert re.sub(codes, "", shown).isprintable()


def test_an_id_that_would_be_obeyed() -> None:
    """Not even an id that was passed reaches a terminal raw."""
    environment = {"CI_LIVE_AUDIT_BUCKET": "b-1250000000", "TENCENTCLOUD_REGION": "ap-beijing"}
    with Terminal([SCRIPT, "wait", "\x9b31m\u202e"], environment=environment) as terminal:
        assert terminal.finish() == 2
        shown = terminal.shown.decode()
    assert "got '\\x9b31m\\u202e'" in shown
    assert not re.search("[\x9b\u202e]", shown)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437"])
def test_a_terminal_of_another_encoding(service: Service, tmp_path: Path, encoding: str) -> None:
    """What a terminal cannot show is escaped, beside the bar, too, and ends no command."""
    text = "\u8272 \xe9 \u2013"
    job_id = service.emulator.add_job(duration=0.01, failure=(text, text))
    file = tmp_path / "ids"
    file.write_text(f"{job_id}\n\u623f\n", encoding="utf-8")
    command = [sys.executable, "-m", "ci_live_audit", "poll", "-o", "table", "--file", str(file)]
    with Terminal(command, columns=200, environment={"PYTHONIOENCODING": encoding}) as terminal:
        assert terminal.finish() == 1
        shown = terminal.shown.decode(encoding)
    assert text.encode(encoding, "backslashreplace").decode(encoding) in shown
    assert "2 done, 0 sensitive, 0 suspected, 2 errors" in shown
    assert "Error:" not in shown
