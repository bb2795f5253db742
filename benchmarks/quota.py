"""Measures a quota that four processes share over Redis, against the libraries that do the same.

A redis-server of its own is started for each row. Every grant is a datagram to a recorder, which
notes when the kernel has received it: one clock for all processes. The failures are real ones: the
server is stopped, killed, emptied, or replaced by a replica that lags behind; its clock is set to
another hour by the script, for the machine has but one.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
from quota_worker import OURS, PEERS
from report import Cell, Table

__all__ = ["Server", "recorder", "run"]

RATE = 20.0
#: Seconds before anything is counted.
WARM_UP = 2.0
#: Seconds for which Redis is away.
AWAY = 3.0
NANOSECONDS = 35  # SO_TIMESTAMPNS of Linux


def run(*, quick: bool) -> Iterator[Table]:
    """Yield the tables."""
    if shutil.which("redis-server") is None:
        print("not measured: needs redis-server")
        return
    yield _shared(seconds=10 if quick else 60)
    yield _urgent(seconds=12 if quick else 60)
    yield _failures(seconds=15 if quick else 30)
    yield _fast(seconds=8 if quick else 30)


# The server and the recorder


class Server:
    """A redis-server, behind an address that may lead to another one later."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.port = _free_port()
        self.process = self._start(self.port)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self.port}"

    def _start(self, port: int, *options: str) -> subprocess.Popen[bytes]:
        command = ["redis-server", "--port", str(port), "--save", "", "--dir", self._folder]
        command += ["--repl-diskless-sync-delay", "0", *options]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return process
            time.sleep(0.02)
        raise SystemExit("redis-server does not start")

    def do(self, *words: str, port: int = 0) -> str:
        """Return the response to a command."""
        command = ["redis-cli", "-p", str(port or self.port), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def cpu(self) -> float:
        """Return the seconds of CPU time it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().split()
        return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")

    def trips(self) -> int:
        """Return how many commands clients have sent, but for a few of this program."""
        found = {}
        for line in self.do("info", "commandstats").splitlines():
            name, _, rest = line.removeprefix("cmdstat_").partition(":calls=")
            found[name] = int(rest.partition(",")[0] or 0) if rest else 0
        scripts = found.get("evalsha", 0) + found.get("eval", 0)
        # Inside of scripts, commands are counted as well.
        return scripts or sum(found.get(name, 0) for name in ("get", "set", "incrby", "multi"))

    def stop(self) -> None:
        """Stop it for some seconds."""
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(AWAY)
        self.process.send_signal(signal.SIGCONT)

    def kill(self, away: float = AWAY) -> None:
        """Kill it, and start it again without its data."""
        self.end()
        time.sleep(away)
        self.process = self._start(self.port)

    def fail_over(self) -> None:
        """Let a replica take over that lacks the last 0.4 s."""
        other = _free_port()
        replica = self._start(other, "--replicaof", "127.0.0.1", str(self.port))
        while "master_link_status:up" not in self.do("info", "replication", port=other):
            time.sleep(0.05)
        time.sleep(0.5)
        self.do("replicaof", "no", "one", port=other)
        time.sleep(0.4)
        self.end()
        # The same address leads to the other, as that of a managed service does.
        replica.send_signal(signal.SIGSTOP)
        self.process = replica
        replica.send_signal(signal.SIGCONT)
        self._forward(other)

    def _forward(self, port: int) -> None:
        listener = socket.create_server(("127.0.0.1", self.port), reuse_port=False)

        def pump(source: socket.socket, target: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while chunk := source.recv(65536):
                    target.sendall(chunk)
            for end in (source, target):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

        def accept() -> None:
            while True:
                client = listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", port))
                for one in (client, server):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=pump, args=(client, server), daemon=True).start()
                threading.Thread(target=pump, args=(server, client), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()

    def end(self) -> None:
        """Kill it."""
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def recorder(note: Callable[[float, bytes], object]) -> Iterator[int]:
    """Note datagrams, and when the kernel received them, until the context ends; give the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)
        receiver.setsockopt(socket.SOL_SOCKET, NANOSECONDS, 1)
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(0.1)
        done = threading.Event()

        def record() -> None:
            while not done.is_set():
                with contextlib.suppress(TimeoutError):
                    data, notes, *_ = receiver.recvmsg(65536, 256)
                    seconds, nanoseconds = struct.unpack("qq", notes[0][2][:16])
                    note(seconds + nanoseconds / 1e9, data)

        thread = threading.Thread(target=record)
        thread.start()
        try:
            yield receiver.getsockname()[1]
        finally:
            done.set()
            thread.join()


# One run


@attrs.define
class Run:
    """What four processes did."""

    rate: float
    began: float
    ended: float
    arrivals: list[tuple[float, int]]
    results: list[dict[str, Any]]
    trips: float
    redis_cpu: float
    during: tuple[float, float] = (0.0, 0.0)

    @property
    def times(self) -> list[float]:
        """When grants arrived."""
        return [moment for moment, _ in self.arrivals if self.began <= moment <= self.ended]

    @property
    def used(self) -> float:
        """The share of the quota that was used."""
        return len(self.times) / (self.rate * (self.ended - self.began))

    def most(self, window: float = 1.0) -> int:
        """Return the most grants in any window of so many seconds."""
        times = [moment for moment, _ in self.arrivals]
        return max(number + 1 - bisect_right(times, t - window) for number, t in enumerate(times))

    @property
    def spread(self) -> str:
        """How far the processes are from the mean."""
        numbers = [0] * 4
        for moment, number in self.arrivals:
            numbers[number] += self.began <= moment <= self.ended
        mean = sum(numbers) / 4
        return f"{min(numbers) / mean - 1:+.0%} {max(numbers) / mean - 1:+.0%}"

    @property
    def client_cpu(self) -> float:
        """Microseconds of CPU time in the processes for each grant."""
        spent: float = sum(result["cpu"] for result in self.results)
        grants: int = sum(result["grants"] for result in self.results)
        return spent / max(1, grants) * 1e6

    @property
    def meanwhile(self) -> float:
        """Grants a second while Redis was away."""
        first, last = self.during
        number = sum(first <= moment < last for moment in self.times)
        return number / (last - first) if last - first > 1 else float("nan")

    @property
    def gap(self) -> float:
        """The longest time without a grant from the failure on."""
        times = [moment for moment in self.times if moment >= self.during[0]]
        return max((b - a for a, b in itertools.pairwise(times)), default=0.0)


Failure = Callable[[Server, Sequence["subprocess.Popen[str]"]], object]


def _run(
    peer: str,
    roles: Sequence[str],
    seconds: float,
    rate: float = RATE,
    failure: Failure | None = None,
) -> Run:
    arrivals: list[tuple[float, int]] = []

    def note(moment: float, data: bytes) -> None:
        arrivals.append((moment, int(data)))

    with tempfile.TemporaryDirectory() as folder, recorder(note) as port:
        server = Server(folder)
        command = [sys.executable, str(Path(__file__).with_name("quota_worker.py"))]
        workers = [
            subprocess.Popen(
                [*command, peer, str(number), server.url, str(port), str(rate), role],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for number, role in enumerate(roles)
        ]
        try:
            for worker in workers:
                assert worker.stdout is not None
                worker.stdout.readline()
            until = time.time() + WARM_UP + seconds
            for worker in workers:
                assert worker.stdin is not None
                worker.stdin.write(f"{until + 1}\n")
                worker.stdin.flush()
            time.sleep(WARM_UP)
            began, cpu, trips, count = time.time(), server.cpu(), server.trips(), len(arrivals)
            during = (began, began)
            if failure is None:
                time.sleep(max(0.0, until - time.time()))
                cpu, trips = server.cpu() - cpu, server.trips() - trips
            else:
                time.sleep(seconds / 3)
                first = time.time()
                failure(server, workers)
                during = (first, time.time())
                time.sleep(max(0.0, until - time.time()))
                cpu = trips = 0
            ended, grants = time.time(), max(1, len(arrivals) - count)
            results = [json.loads(worker.communicate(timeout=20)[0] or "{}") for worker in workers]
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
            server.end()
    results = [result for result in results if result]
    counted = (sorted(arrivals), results, trips / grants, cpu / grants * 1e6, during)
    return Run(rate, began, ended, *counted)


# The tables


def _shared(seconds: float) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for peer in PEERS:
        done = _run(peer, ["saturated"] * 4, seconds)
        alone = _run(peer, ["saturated", "idle", "idle", "idle"], min(seconds, 20))
        rows.append(
            (
                *(peer, done.most(), done.most(0.975), done.used, done.spread, done.trips),
                *(done.redis_cpu, done.client_cpu, alone.used),
            )
        )
    return Table(
        f"Four processes that share 20/s over Redis for {seconds:g} s, 8 callers waiting in each",
        (
            *("", "most in 1 s", "in 0.975 s", "used", "processes", "round trips"),
            *("CPU µs: Redis", "processes", "used by one of four"),
        ),
        rows,
        ("Round trips and CPU time are for each grant. Limits: 20, 20, 1, 0 %, 1.",),
    )


def _urgent(seconds: float) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for peer in PEERS:
        done = _run(peer, ["bulk"] * 3 + ["urgent"], seconds)
        waits = sorted(wait * 1e3 for result in done.results for wait in result["waits"])
        found = waits[len(waits) // 2], waits[int(len(waits) * 0.95)], waits[-1]
        rows.append((peer, len(waits), *found, done.used, done.most()))
    return Table(
        "How long an urgent call waits in one process while three take all they get",
        ("", "calls", "median ms", "p95 ms", "longest ms", "used", "most in 1 s"),
        rows,
        ("A slot is 50 ms. Of the peers, none knows what is urgent.",),
    )


FAILURES: dict[str, Failure] = {
    "stopped for 3 s": lambda server, _: server.stop(),
    "killed, back after 3 s": lambda server, _: server.kill(),
    "restarted empty": lambda server, _: server.kill(0.0),
    "flushed": lambda server, _: server.do("flushall"),
    "failed over, 0.4 s lost": lambda server, _: server.fail_over(),
    "clock + 1 h": lambda server, _: server.do("set", "offset", "3600"),
    "clock - 1 h": lambda server, _: server.do("set", "offset", "-3600"),
    "a process killed": lambda _, workers: workers[0].kill(),
}


def _failures(seconds: float) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name, failure in FAILURES.items():
        done = _run(OURS, ["saturated"] * 4, seconds, failure=failure)
        meanwhile = done.meanwhile if done.meanwhile == done.meanwhile else None
        rows.append((name, done.most(), done.most(0.975), done.used, meanwhile, done.gap))
    done = _run(OURS, ["impatient"] * 4, seconds)
    cancelled = sum(result["cancelled"] for result in done.results)
    row = (f"{cancelled:,} callers cancelled", done.most(), done.most(0.975), done.used, None, None)
    return Table(
        f"The same in {seconds:g} s with a failure",
        ("", "most in 1 s", "in 0.975 s", "used", "a second meanwhile", "longest gap s"),
        [*rows, row],
        ("Limits: 20, 20, 1, 20, 0.05. After a clock that went back, a second is waited out.",),
    )


def _fast(seconds: float) -> Table:
    done = _run(OURS, ["saturated"] * 4, seconds, rate=500)
    return Table(
        f"Four processes that share 500/s for {seconds:g} s",
        ("", "most in 1 s", "used", "round trips", "CPU µs: Redis", "processes", "spread"),
        [(OURS, done.most(), done.used, done.trips, done.redis_cpu, done.client_cpu, done.spread)],
        ("CPU time and round trips are for each grant. Limits: 500, 1.",),
    )
