"""`--shared`: the same command, started several times, shares the work over a real redis-server."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import redis as redis_py
from command_line import SCRIPT, Service, parse, parsed, run, serving
from daemons import RedisServer
from proofs import IN_FULL

from ci_live_audit.testing import frame

STREAMS = 9


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as service:
        yield service


@pytest.fixture
def name() -> str:
    """Return a name that no other test has."""
    return f"command {time.monotonic_ns()}"


@pytest.mark.parametrize("command", [("poll", "a"), ("watch", "a"), ("moderate", "rtmp://h/a")])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shared", "x"], "--shared needs --redis URL, or CI_LIVE_AUDIT_REDIS"),
        (["--shared", " ", "--redis", "redis://h"], "--shared needs a name"),
        (
            ["--shared", "x", "--redis", "redis://h", "--checkpoint", "file"],
            "--shared and --checkpoint exclude each other",
        ),
        (["--shared", "x", "--redis", "redis://h", "--checkpoint", "/"], "is a directory"),
    ],
)
def test_wrong_usage(command: tuple[str, ...], options: list[str], message: str) -> None:
    """It is told before anything is done, with the exit code of wrong usage."""
    result = run(*command, *options)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert not Path("file").exists()


@pytest.mark.parametrize("command", ["poll", "watch"])
def test_one_process_does_all(
    service: Service, redis: RedisServer, name: str, command: str
) -> None:
    """And a second one, later, has nothing left to do."""
    given = [
        service.emulator.add_job(duration=1, script=[one])
        for one in (frame(0.5), frame(0.5, "Porn"))
    ]
    service.clock.seconds = 5
    options = [command, *given, "--redis", redis.url, "--shared", name]
    first = service.run(*options)
    assert first.exit_code == 3
    assert {one["job_id"] for one in parsed(first)} == {*given}
    assert "0 open in all processes\n" in first.stderr
    again = service.run(*options)
    assert (again.exit_code, again.stdout) == (0, "")


def test_moderate_alone(service: Service, redis: RedisServer, name: str) -> None:
    """What is over is not submitted again by the same command."""
    url = "rtmp://live.example.com/app/1"
    service.emulator.add_stream(url, duration=0)
    options = ["moderate", url, "--all", "--redis", redis.url, "--shared", name]
    assert service.run(*options).exit_code == 0
    again = service.run(*options)
    assert (again.exit_code, again.stdout, len(service.emulator.jobs)) == (0, "", 1)


def test_what_is_open_is_not_known(service: Service, redis: RedisServer, name: str) -> None:
    """When Redis has refused the run, as the name is for another command."""
    job_id = service.emulator.add_job(duration=0)
    options = [job_id, "--redis", redis.url, "--shared", name]
    assert "0 open in all processes\n" in service.run("watch", *options).stderr
    refused = service.run("poll", *options)
    assert "not runs of as_completed" in " ".join(refused.stderr.split())
    assert "is not known: Redis has not said it" in refused.stderr
    assert "0 open" not in refused.stderr


def test_a_url_that_is_none(service: Service) -> None:
    """It is named without being shown, as it may hold a password."""
    result = service.run("watch", "a", "--shared", "x", "--redis", "redis://user:pa55word@h:x")
    assert result.exit_code == 2
    assert "Error: redis: expected a URL redis://" in result.stderr
    assert "pa55word" not in result.stderr


# Three processes


@attrs.frozen
class Process:
    """A command in a process of its own, and what it prints."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def lines(self) -> list[dict[str, Any]]:
        """Return what it has printed until now; a last line may be cut off by a kill."""
        whole, end, _ = self.out.read_text().rpartition("\n")
        return parse(whole + end)

    def end(self, signal_: int | None = None) -> int:
        """Send a signal, if any, and return the exit code."""
        if signal_ is not None:
            self.process.send_signal(signal_)
        return self.process.wait(60)


def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    limit = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.mark.parametrize("command", ["moderate", *(["watch", "poll"] if IN_FULL else [])])
def test_three_processes_share_the_work(
    tmp_path: Path, service: Service, redis: RedisServer, name: str, command: str
) -> None:
    """One is killed, one is terminated: the third goes on with all, and nothing is lost."""
    emulator = service.emulator
    given = [f"rtmp://live.example.com/app/{number}" for number in range(STREAMS)]
    script = [frame(1, "Porn"), frame(3, "Ads")]
    for url in given:
        emulator.add_stream(url, duration=4, script=script)
    if command != "moderate":
        given = [emulator.add_job(duration=4, script=script) for _ in given]
    options = [*given, "--redis", redis.url, "--shared", name, "--interval", "0.2", "-o", "json"]
    options += [] if command == "poll" else ["--all"]

    def start(number: int) -> Process:
        out, err = tmp_path / f"out{number}", tmp_path / f"err{number}"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [SCRIPT, command, *options],
                env={**os.environ, **service.environ},
                stdout=stdout,
                stderr=stderr,
                stdin=subprocess.DEVNULL,
            )
        return Process(process, out, err)

    key_of = f"ci_live_audit:{{{name}}}:jobs:".__add__
    with redis_py.Redis.from_url(redis.url) as client:

        def noted(key: bytes) -> int:
            """Return how much is noted of a stream: its claim, its job, and what was seen."""
            value: Any = client.get(key)
            return (value or b"").count(b".")

        processes = [start(0)]
        try:
            until(lambda: client.zcard(key_of("workers")) == 1)
            (first,) = client.zrange(key_of("workers"), 0, -1)
            processes += [start(1), start(2)]
            until(lambda: client.zcard(key_of("workers")) == 3)
            until(lambda: len(client.keys(key_of("own:*"))) == 3)
            if command == "moderate":
                until(lambda: len(emulator.jobs) == STREAMS)
                until(lambda: sum(noted(one) > 1 for one in client.keys(key_of("seen:*"))) == 9)
            service.clock.seconds = 2
            killed, terminated, rest = processes
            if command != "poll":
                until(lambda: bool(killed.lines()))
            assert killed.end(signal.SIGKILL) == -signal.SIGKILL
            client.zadd(key_of("workers"), {first: 1}, xx=True)  # its time is over
            assert terminated.end(signal.SIGTERM) == 130
            service.clock.seconds = 5
            assert rest.end() == 3
        finally:
            for one in processes:
                one.process.kill()
                one.process.wait()
    lines = [line for one in processes for line in one.lines()]
    times = Counter(str(line.get("key", line["job_id"])) for line in lines)
    assert times.total() - len(times) <= 1  # what the killed one had in hand
    assert {line["job_id"] for line in lines} == {*emulator.jobs}
    assert len(emulator.jobs) == STREAMS
    if command != "poll":
        found = {(one["job_id"], one["label"]) for one in lines if one.get("snapshot")}
        assert {(job, label) for job in emulator.jobs for label in ("Porn", "Ads")} <= found
    assert "open in all processes; the others go on with them" in terminated.err.read_text()
    assert "0 open in all processes\n" in rest.err.read_text()
    assert "Traceback" not in "".join(one.err.read_text() for one in processes)
