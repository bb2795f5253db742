"""`moderate`, and `submit` for many streams: from URLs to what was cancelled in the end."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from command_line import SCRIPT, Service, parsed, run, served, serving
from terminal import start

from ci_live_audit import AccessDenied, Credentials, LiveAuditClient
from ci_live_audit.cli import moderate
from ci_live_audit.testing import Emulator, Fault, frame
from ci_live_audit.testing.render import Refusal

FAST = ("--interval", "0.05")


def url(name: str) -> str:
    """Return the URL of a stream."""
    return f"rtmp://live.example.com/app/{name}"


@attrs.frozen
class Live:
    """A served emulator whose streams run by the clock, and the environment to reach it."""

    emulator: Emulator
    environ: dict[str, str]

    def run(self, *arguments: str, **options: Any) -> Any:
        """Run a command in this process."""
        return run(*arguments, **options, **self.environ)

    def start(self, *arguments: str, **options: Any) -> Any:
        """Start a command in its own process."""
        return start(SCRIPT, *arguments, env={**os.environ, **self.environ}, **options)


@pytest.fixture
def live() -> Iterator[Live]:
    emulator = Emulator(rate=math.inf)
    emulator.add_stream(url("bad"), duration=0.3, script=[frame(0.05), frame(0.1, "Porn")])
    emulator.add_stream(url("good"), duration=0.2, script=[frame(0.05)])
    emulator.add_stream(url("broken"), duration=0.1, failure=("ResourceDownloadFailed", "gone"))
    for number in range(5):
        emulator.add_stream(url(f"endless{number}"), duration=1e9)
    with served(emulator) as environ:
        yield Live(emulator, environ)


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as service:
        yield service


@pytest.mark.parametrize("way", ["arguments", "file", "input", "dash"])
def test_streams_are_moderated_to_their_ends(live: Live, tmp_path: Path, way: str) -> None:
    """URLs come from where ids come from; each is submitted once, and findings are printed."""
    file = tmp_path / "urls.txt"
    file.write_text(f"# rooms\n{url('bad')}\n\n{url('good')}\n{url('bad')}\n")
    arguments: dict[str, tuple[list[str], str | None]] = {
        "arguments": ([url("bad"), url("good")], None),
        "file": (["--file", str(file)], None),
        "input": ([], file.read_text()),
        "dash": ([url("good"), "--file", "-"], file.read_text()),
    }
    given, text = arguments[way]
    result = live.run("moderate", *given, *FAST, input=text)
    assert result.exit_code == 3
    assert re.fullmatch(
        "2 done, 1 sensitive, 0 suspected, 0 errors, 0 timed out; \\d+ requests\n", result.stderr
    )
    assert len(live.emulator.jobs) == 2
    found = [line for line in parsed(result) if line["verdict"] == 1]
    assert [(line["kind"], line["stream"]["url"], line["label"]) for line in found] == [
        ("finding", url("bad"), "Porn")
    ]
    assert not [line for line in parsed(result) if line["verdict"] == 0]


def test_it_exits_as_watch(live: Live) -> None:
    """0 if nothing was found, 1 if something failed, 4 if a stream did not end in time."""
    assert live.run("moderate", url("good"), *FAST).exit_code == 0
    assert live.run("moderate", url("good"), url("broken"), *FAST).exit_code == 1
    late = live.run("moderate", url("endless0"), *FAST, "--timeout", "0.3")
    assert late.exit_code == 4
    assert all(job.cancelled for job in live.emulator.jobs.values() if job.stream.duration > 1)
    assert live.run("moderate", "nonsense", url("good"), *FAST).exit_code == 2
    wrong = live.run("moderate", *FAST, input=f"{url('good')}\nnonsense\n")
    assert wrong.exit_code == 1


def test_what_is_sensitive_is_cancelled_if_asked(live: Live) -> None:
    """As by watch."""
    live.emulator.add_stream(url("bad"), duration=1e9, script=[frame(0.1, "Porn")])
    options = ["--biz-type", "b", "--data-id", "d", "--at-once", "1", "--cancel", "--all"]
    result = live.run("moderate", url("bad"), *FAST, *options)
    assert result.exit_code == 3
    (job,) = live.emulator.jobs.values()
    assert job.cancelled is not None
    assert job.data_id == "d"


def test_nothing_is_sent_in_a_dry_run(live: Live, tmp_path: Path) -> None:
    """What would be is shown."""
    file = tmp_path / "urls.txt"
    file.write_text(f"{url('bad')}\n{url('good')}\n")
    for command in ("moderate", "submit"):
        result = live.run(command, "--file", str(file), "--biz-type", "b", "--dry-run")
        assert result.exit_code == 0
        assert len(re.findall(r"<BizType>b</BizType>", result.stderr)) == 2
    assert live.emulator.arrivals == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("url,room\nrtmp://a,1\n", "this looks like no URL; expected one URL a line"),
        ("rtmp://a.example.com/1 room1\n", r"this looks like a table \(CSV\)"),
        ('["rtmp://a"]', "this looks like a JSON array"),
        ('"rtmp://a","1"', "this looks like quoted text"),
        ('{"href": "rtmp://a"}', "JSON without a url"),
    ],
)
def test_what_is_no_list_of_urls_is_refused(live: Live, text: str, message: str) -> None:
    """As a whole, before anything is sent."""
    for command in (["moderate"], ["submit", "--file", "-"]):
        result = live.run(*command, input=text)
        assert result.exit_code == 1
        assert re.search(message, result.stderr)
    assert live.emulator.arrivals == []


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupt_cancels_what_runs(live: Live, name: str) -> None:
    """It says so, for each."""
    urls = [url(f"endless{number}") for number in range(2)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with live.start("moderate", *urls, *FAST, **pipes) as process:
        for _ in urls:
            assert process.stdout.readline()
        process.send_signal(getattr(signal, name))
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"0 errors, 0 timed out, 2 not followed to the end; " in errors
    told = re.findall(r"cancelled (\w+) \((.*)\)", errors.decode())
    assert {job_id for job_id, _ in told} == set(live.emulator.jobs)
    assert {stream for _, stream in told} == set(urls)
    assert all(job.cancelled for job in live.emulator.jobs.values())


@pytest.mark.parametrize(("interrupts", "seconds", "cancelled"), [(2, 1, True), (3, 3600, False)])
def test_a_second_interrupt_does_not_let_jobs_run_on(
    live: Live, interrupts: int, seconds: float, cancelled: bool
) -> None:
    """What is being cancelled costs money, so only a third interrupt ends the command at once."""
    live.emulator.inject(Fault.slow(seconds), operation="cancel")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with live.start("moderate", url("endless0"), *FAST, **pipes) as process:
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        while not any("cancel" in arrival.path for arrival in live.emulator.arrivals):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        warning = process.stderr.readline().decode()
        assert warning.startswith("warning: cancelling what still runs; Ctrl-C once more")
        for _ in range(2, interrupts):
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    (job,) = live.emulator.jobs.values()
    assert (job.cancelled is not None) == cancelled


def test_a_reader_that_goes_cancels_what_runs(live: Live) -> None:
    """Nobody would see the findings."""
    live.emulator.add_stream(
        url("long"), duration=1e9, script=[frame(0.1 * number, "Porn") for number in range(600)]
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with live.start("moderate", url("long"), *FAST, **pipes) as process:
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read().decode()
        assert process.wait(60) == 141
    assert "cancelled av" in errors
    assert all(job.cancelled for job in live.emulator.jobs.values())


def test_what_cannot_be_cancelled_is_said(live: Live) -> None:
    """By its job, or by its stream if the answer to the submission was lost."""
    live.emulator.inject(Fault.reset(), times=1, operation="submit")
    lost = live.run("moderate", url("endless0"), *FAST)
    assert lost.exit_code == 1
    assert f"error: a job for {url('endless0')} may run on: submit:" in lost.stderr
    fault = Fault(refusal=Refusal(403, "AccessDenied", "no"))
    live.emulator.inject(fault, operation="cancel")
    kept = live.run("moderate", url("endless1"), *FAST, "--timeout", "0.2")
    assert kept.exit_code == 4
    job_id = list(live.emulator.jobs)[-1]
    assert f"error: {job_id} ({url('endless1')}) may run on: cancel of {job_id}" in kept.stderr


def test_a_checkpoint_is_gone_on_with(live: Live, tmp_path: Path) -> None:
    """What is over is not submitted again."""
    path = str(tmp_path / "checkpoint")
    for _ in range(2):
        result = live.run("moderate", url("good"), *FAST, "--checkpoint", path)
        assert result.exit_code == 0
    assert len(live.emulator.jobs) == 1


# submit for many


def test_many_are_submitted_once_each(service: Service, tmp_path: Path) -> None:
    """One line each, with its URL; a table has the same."""
    file = tmp_path / "urls.txt"
    file.write_text(f"{url('a')}\n{json.dumps({'url': url('b')})}\n{url('a')}\n")
    result = service.run("submit", url("c"), "--file", str(file), "--data-id", "d")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = parsed(result)
    assert [(line["kind"], line["url"]) for line in lines] == [
        ("submitted", url(name)) for name in "cab"
    ]
    assert [line["job_id"] for line in lines] == list(service.emulator.jobs)
    shown = service.run("submit", url("d"), url("e"), "--output", "table")
    assert re.findall(r"url +(\S+)", shown.stdout) == [url("d"), url("e")]
    assert (
        shown.stderr == f"next: ci-live-audit watch {' '.join(list(service.emulator.jobs)[-2:])}\n"
    )
    many = service.run("submit", *(url(f"{number}") for number in range(4)), "--output", "table")
    assert many.stderr == "next: ci-live-audit watch JOB_ID...\n"


def test_one_that_fails_ends_no_other(service: Service) -> None:
    """It is a line, too, and the exit code."""
    service.emulator.inject(Fault.error(503), times=1, operation="submit")
    lines_ = f"{url('a')}\n{url('b')}\nnonsense\n{url('c')}\n"
    result = service.run("submit", "--file", "-", input=lines_)
    assert result.exit_code == 1
    lines = parsed(result)
    assert [line["kind"] for line in lines] == ["error", "submitted", "error", "submitted"]
    assert lines[0]["url"] == url("a")
    assert lines[0]["error"]["may_have_happened"] is True
    assert f"error: {url('a')}: submit: 503" in result.stderr
    lines_ = f"{url('d')}\nnonsense\n"
    table = service.run("submit", "--file", "-", "--output", "table", input=lines_)
    assert (table.exit_code, len(service.emulator.jobs)) == (1, 3)


def test_a_fault_of_the_account_is_said_once(service: Service) -> None:
    """After five streams, not for each of hundreds."""
    service.emulator.credentials = Credentials("AKIDEXAMPLE", "another")
    result = service.run("submit", *(url(str(number)) for number in range(100)))
    assert result.exit_code == 1
    assert len(parsed(result)) == 5


def test_refusals_of_single_streams_end_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only five in a row are a fault of the account."""
    original = LiveAuditClient.submit

    async def submit(self: Any, name: str, **options: Any) -> Any:
        if name.endswith("x"):
            raise AccessDenied("no", status=403, code="AccessDenied")
        return await original(self, name, **options)

    monkeypatch.setattr(LiveAuditClient, "submit", submit)
    names = [url(f"{number}{'x' if number % 2 else ''}") for number in range(14)]
    result = service.run("submit", *names)
    assert result.exit_code == 1
    assert [line["kind"] for line in parsed(result)] == 7 * ["submitted", "error"]


def test_urls_to_submit_may_be_piped_in(service: Service) -> None:
    """As for every command that takes some; nothing is an error."""
    assert service.run("submit", input="").exit_code == 2
    for number, options in enumerate(([], ["-f", "-"])):
        assert service.run("submit", *options, input=url("a")).exit_code == 0
        assert len(service.emulator.jobs) == number + 1


@pytest.mark.parametrize("what", ["answered", "refused", "lost"])
def test_an_interrupt_waits_for_the_answer(
    service: Service, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was submitted has been printed, and nothing more is submitted."""
    fault = Fault.slow(1)
    if what == "refused":
        fault = attrs.evolve(fault, refusal=Refusal(400, "InvalidArgument", "no"))
    if what == "lost":
        monkeypatch.setattr(moderate, "PATIENCE", 0.1)
        fault = Fault.slow(30)
    service.emulator.inject(fault, operation="submit")

    client = LiveAuditClient
    original = client.submit

    async def submit(self: Any, *arguments: Any, **options: Any) -> Any:
        loop = asyncio.get_running_loop()
        loop.call_later(0.3, os.kill, os.getpid(), signal.SIGINT)
        return await original(self, *arguments, **options)

    monkeypatch.setattr(client, "submit", submit)
    result = service.run("submit", url("a"), url("b"))
    assert result.exit_code == 130
    told = {
        "answered": (1, ""),
        "refused": (0, f"error: {url('a')}: submit: 400 InvalidArgument"),
        "lost": (0, f"error: {url('a')}: there was no answer; a job may run"),
    }
    number, message = told[what]
    assert len(parsed(result)) == number
    assert message in result.stderr
    assert len(service.emulator.arrivals) == 1
