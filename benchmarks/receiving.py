"""The cost of receiving callbacks over a real socket, beside a bare Starlette route.

A server of each kind is a process of its own, uvicorn on one core, so its CPU time is that of
parsing HTTP, of the framework and of what is done with the body. The peer reads a body and parses
its JSON, and does nothing else: it checks no token, has no bounds, types nothing, and knows no
duplicates. All get the same Simple callbacks of about 450 bytes, no two the same, over kept
connections. What is forged is refused without a look at the body.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.request import urlopen

import attrs
import uvicorn
from report import Sample, Table, interleaved
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from ci_live_audit.callbacks import Callback, CallbackReceiver

__all__ = ["run"]

SECRET = "a secret of 16 bytes and more"
CONNECTIONS = 16
STARLETTE, RECEIVER = "Starlette, request.json()", "receiver"
MOUNTED, IN_THREAD, FORGED = (
    f"{RECEIVER}, {how}" for how in ("mounted in Starlette", "on_callback in a thread", "forged")
)


@attrs.frozen
class _Cost:
    """CPU microseconds of the server for each callback, and callbacks a second."""

    cpu: float
    rate: float


def run(*, quick: bool) -> Iterator[Table]:
    """Yield the table."""
    count, rounds = (1_000, 3) if quick else (5_000, 7)
    with contextlib.ExitStack() as stack:
        cases = {
            name: partial(_measure, name, stack.enter_context(_serving(name)), count)
            for name in (STARLETTE, RECEIVER, MOUNTED, IN_THREAD, FORGED)
        }
        results = interleaved(cases, rounds)
    cpu = {name: Sample.of(one.cpu for one in costs) for name, costs in results.items()}
    rate = {name: Sample.of(one.rate for one in costs) for name, costs in results.items()}
    yield Table(
        f"Receiving Simple callbacks, {count:,} a round, {rounds} rounds",
        ("server", "CPU µs", "a second on one core", "a second, seen", "CPU vs Starlette"),
        [
            (
                name,
                cpu[name],
                Sample.of(1e6 / value for value in cpu[name].values),
                rate[name],
                cpu[name] / cpu[STARLETTE],
            )
            for name in cases
        ],
        (f"{CONNECTIONS} connections; client and server share the machine's cores.",),
    )


# The client


def _measure(name: str, url: str, count: int) -> _Cost:
    """Post callbacks, each once, and return what that has cost the server."""
    path = CallbackReceiver(SECRET).url("http://a/hooks", "room7")[len("http://a") :]
    if name == FORGED:
        path = path[:-64] + 64 * "0"
    requests = [_request(path, time.time_ns() + number) for number in range(count)]
    port = int(url.rpartition(":")[2])
    before, began = _cpu(url), time.perf_counter()
    asyncio.run(_post(requests, port, b"404" if name == FORGED else b"200"))
    took = time.perf_counter() - began
    return _Cost((_cpu(url) - before) / count * 1e6, count / took)


def _request(path: str, number: int) -> bytes:
    data = {
        "event": "ReviewVideo",
        "trace_id": f"av{number:032x}",
        "url": "rtmp://live.example.com/app/room7",
        "result": 1,
        "forbidden_status": 0,
        "data_id": "room7",
        "porn_info": {"hit_flag": 1, "label": "SexBehavior", "count": 3},
        "ads_info": {"hit_flag": 0, "label": "", "count": 0},
    }
    body = json.dumps({"code": 0, "message": "success", "data": data}).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: example.com\r\nX-Ci-Content-Version: Simple\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _post(requests: list[bytes], port: int, status: bytes) -> None:
    async def work() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while requests:
            writer.write(requests.pop())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.split(b" ", 2)[1] == status, head
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(work() for _ in range(CONNECTIONS)))


def _cpu(url: str) -> float:
    """Return the CPU seconds of a server until now."""
    with urlopen(f"{url}/cpu") as response:
        return float(response.read())


# The servers


@contextlib.contextmanager
def _serving(name: str) -> Iterator[str]:
    command = [sys.executable, __file__, name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


async def _parse(request: Request) -> Response:
    await request.json()
    return Response()


async def _take(callback: Callback) -> None:
    assert callback.job_id


def _take_in_thread(callback: Callback) -> None:
    assert callback.job_id


def _app(name: str) -> Any:
    if name == STARLETTE:
        return Starlette(routes=[Route("/hooks/{token}", _parse, methods=["POST"])])
    function = _take_in_thread if name == IN_THREAD else _take
    receiver = CallbackReceiver(SECRET, on_callback=function)
    return Starlette(routes=[Mount("/hooks", receiver)]) if name == MOUNTED else receiver


def _with_cpu(app: Any) -> Any:
    async def called(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/cpu":
            await Response(str(time.process_time()))(scope, receive, send)
        else:
            await app(scope, receive, send)

    return called


def _serve(name: str) -> None:
    options: dict[str, Any] = {"loop": "asyncio", "http": "h11", "log_level": "warning"}
    config = uvicorn.Config(_with_cpu(_app(name)), port=0, access_log=False, **options)
    with config.bind_socket() as bound:
        print(f"http://127.0.0.1:{bound.getsockname()[1]}", flush=True)
        uvicorn.Server(config).run([bound])


if __name__ == "__main__":
    _serve(sys.argv[1])
