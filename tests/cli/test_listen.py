"""`listen`: a receiver that prints callbacks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from command_line import SCRIPT, parse, run
from posted import PROBE, body
from servers import eventually
from terminal import start

from ci_live_audit import CallbackReceiver
from ci_live_audit.cli import listen as module
from ci_live_audit.cli.listen import listen
from ci_live_audit.cli.output import Output

SECRET = "a secret of 16 bytes and more"


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    """Return a file of two secrets, the newest first."""
    path = tmp_path / "callback.secret"
    path.write_text(f"{SECRET}\n\n  {SECRET[::-1]} \r\n")
    path.chmod(0o600)
    return path


def urls(said: str) -> list[str]:
    """Return the URLs that were shown to be submitted."""
    lines = [shlex.split(line) for line in said.splitlines()]
    return [words[1] for words in lines if words[:1] == ["--callback"]]


class Listening:
    """The command in this process, and what it has said."""

    def __init__(self, capsys: pytest.CaptureFixture[str], **options: Any) -> None:
        self.capsys = capsys
        self.said, self.printed = "", ""
        self.task = asyncio.create_task(listen(Output("json"), host="127.0.0.1", port=0, **options))

    def has_said(self, count: int = 1) -> bool:
        """Whether it has shown so many URLs."""
        captured = self.capsys.readouterr()
        self.printed += captured.out
        self.said += captured.err
        return len(urls(self.said)) == count

    async def end(self) -> int:
        """Interrupt it, and return its exit code."""
        self.task.cancel()
        code = await self.task
        self.has_said()
        return code


@contextlib.asynccontextmanager
async def listening(capsys: pytest.CaptureFixture[str], **options: Any) -> AsyncIterator[Listening]:
    """Run the command until the context ends."""
    command = Listening(capsys, **{"base": None, "data_ids": (), **options})
    try:
        assert await eventually(lambda: command.has_said(len(options.get("data_ids", "1"))))
        yield command
    finally:
        command.task.cancel()
        await asyncio.wait([command.task])


@pytest.mark.waits
async def test_callbacks_are_printed(secret_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each new one is a line of JSON; the end is told in numbers."""
    async with listening(capsys, secret_file=secret_file) as command:
        (url,) = urls(command.said)
        old = CallbackReceiver(SECRET[::-1]).url(url.rpartition("/")[0])
        async with httpx.AsyncClient() as http:
            for to, data, status in (
                (url, body("av1", "\u623f"), 200),
                (url, body("av1", "\u623f"), 200),
                (old, body("av2"), 200),
                (url, PROBE, 200),
                (url, b"{", 200),
                (url[:-1], body("av3"), 404),
            ):
                assert (await http.post(to, content=data)).status_code == status
        assert await command.end() == 0
    lines = parse(command.printed)
    assert [(one["kind"], one["schema"], one["job_id"]) for one in lines] == [
        ("callback", 1, "av1"),
        ("callback", 1, "av2"),
    ]
    assert lines[0]["data_id"] == "\u623f"
    assert command.said.endswith("2 taken, 1 duplicate, 1 refused, 1 unreadable, 1 probe\n")
    assert SECRET not in command.said + command.printed


@pytest.mark.waits
async def test_each_stream_has_its_url(
    secret_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The options to submit can be copied; the base is where the service reaches it."""
    base, data_ids = "https://bot.example.com/a", ("room 7", "\u623f")
    options = {"secret_file": secret_file, "base": base, "data_ids": data_ids}
    async with listening(capsys, **options) as command:
        receiver = CallbackReceiver(SECRET)
        assert urls(command.said) == [receiver.url(base, data_id) for data_id in data_ids]
        shown = [shlex.split(line) for line in command.said.splitlines()[1:]]
        assert [words[2:] for words in shown] == [["--data-id", data_id] for data_id in data_ids]
        assert await command.end() == 0
    assert command.said.endswith("no callbacks\n")


@pytest.mark.waits
async def test_a_secret_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is its owner's alone, is not shown, and stays for the next time."""
    path = tmp_path / "callback.secret"
    shown: list[str] = []
    for round_ in range(2):
        async with listening(capsys, secret_file=path, base="https://example.com") as command:
            shown += urls(command.said)
            assert ("made a secret" in command.said) == (round_ == 0)
            assert "warning" not in command.said
            await command.end()
        assert path.read_text().strip() not in command.said
    assert shown[0] == shown[1]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_text().strip()) >= 32


@pytest.mark.waits
async def test_a_secret_that_others_may_read_is_told(
    secret_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is used all the same."""
    secret_file.chmod(0o640)
    async with listening(capsys, secret_file=secret_file) as command:
        assert command.said.startswith(f"warning: others may read {secret_file}: chmod 600 ")
        assert await command.end() == 0


@pytest.mark.waits
async def test_results_that_cannot_be_printed_end_it(
    secret_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is an error, as of every command."""

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Output, "result", fail)
    async with listening(capsys, secret_file=secret_file) as command:
        async with httpx.AsyncClient() as http:
            answer = await http.post(urls(command.said)[0], content=body())
        assert answer.status_code == 200
        with pytest.raises(OSError, match="No space left"):
            await command.task


@pytest.mark.waits
async def test_a_reader_that_takes_nothing_does_not_hold_it(
    secret_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not printed within some seconds of its end is left."""
    go_on = threading.Event()
    monkeypatch.setattr(Output, "result", lambda *_: go_on.wait())
    monkeypatch.setattr(module, "GRACE", 0.01)
    async with listening(capsys, secret_file=secret_file) as command:
        async with httpx.AsyncClient() as http:
            assert (await http.post(urls(command.said)[0], content=body())).status_code == 200
        assert await command.end() == 0
    go_on.set()


@pytest.mark.parametrize(
    ("content", "options", "code", "told"),
    [
        ("\n\n", (), 1, "secret: expected a text or bytes"),
        (SECRET, ("--base", "example.com"), 2, "base: expected a URL of http or https"),
        (SECRET, ("--data-id", ""), 2, "data_id: empty"),
    ],
)
def test_what_is_malformed_is_told(
    tmp_path: Path, content: str, options: tuple[str, ...], code: int, told: str
) -> None:
    """One line says what is wrong, without the secret, before anything is served."""
    path = tmp_path / "callback.secret"
    path.write_text(content)
    path.chmod(0o600)
    result = run("listen", "--port", "0", "--secret-file", str(path), *options)
    assert (result.exit_code, result.stdout) == (code, "")
    (line,) = re.findall("(?im)^error: .*", result.stderr)
    assert told in line
    assert "short" not in result.stderr


def test_without_uvicorn_it_says_what_to_install(
    secret_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs the extra of the emulator."""
    monkeypatch.delitem(sys.modules, "ci_live_audit.testing.serving", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = run("listen", "--secret-file", str(secret_file))
    assert result.exit_code == 1
    assert 'pip install "ci-live-audit[emulator]"' in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it(secret_file: Path, number: int) -> None:
    """Ctrl-C and SIGTERM are its normal end, after all that was answered is printed."""
    command = (SCRIPT, "listen", "--port", "0", "--secret-file", str(secret_file))
    with start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        process.stderr.readline()
        (url,) = urls(process.stderr.readline().decode())
        with httpx.Client() as http:
            for at in range(20):
                assert http.post(url, content=body(f"av{at}")).status_code == 200
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert [one["job_id"] for one in parse(out.decode())] == [f"av{at}" for at in range(20)]
    assert err == b"20 taken\n"


def test_a_reader_that_goes_ends_it(secret_file: Path) -> None:
    """As every command, it exits with 141."""
    command = (SCRIPT, "listen", "--port", "0", "--secret-file", str(secret_file))
    reading, writing = os.pipe()
    with start(*command, stdout=writing, stderr=subprocess.PIPE) as process:
        os.close(writing)
        os.close(reading)
        assert process.stderr is not None
        process.stderr.readline()
        (url,) = urls(process.stderr.readline().decode())
        assert httpx.post(url, content=body()).status_code == 200
        process.communicate(timeout=30)
    assert process.returncode == 141
