"""Measures where the CPU time of one whole call goes, with one call in flight.

In two ways, because each has its bias. The parts of a call are measured one by one and without a
profiler, in the same rounds as the whole; the rest is what each part costs more when another has
just used the processor's caches. And the call runs under cProfile, which sees everything but makes
small functions look more expensive than they are; its self times are summed by package.
"""

from __future__ import annotations

import asyncio
import cProfile
import gc
import math
import pstats
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import PurePath
from typing import Any

import attrs
import httpx
import service
import xmltodict
from peers import ours
from report import Sample, Table, interleaved

from ci_live_audit import decode
from ci_live_audit.limits.local import LocalRateLimiter
from ci_live_audit.transport.exchange import Transport
from ci_live_audit.wire import requests, signature
from ci_live_audit.wire.responses import Response

__all__ = ["run"]

WHOLE = "the whole call"
EXCHANGE = "the exchange: Transport.send"
HTTPX = "  for comparison: an httpx transport with its pool"
AROUND = "everything else, with a ready response"
DECODE = "  of which decode.job"
XMLTODICT = "  for comparison: xmltodict.parse"
SIGN = "  of which request and signature"
LIMITER = "  of which the limiter, without a limit"
REST = "extra cost of alternating between both"
TOP = 12
LIBRARY = PurePath(asyncio.__file__).parts[-3]


def run(*, quick: bool) -> Iterator[Table]:
    """Yield the tables of parts, packages and functions."""
    body = service.answer(1)
    with service.serving(body) as url, asyncio.Runner() as runner:
        yield _parts(runner, url, body, calls=300 if quick else 1000, rounds=3 if quick else 9)
        calls = 500 if quick else 2000
        functions = runner.run(_profile(url, calls))
    whole = sum(own for own, _ in functions.values())
    packages: dict[str, float] = {}
    for (package, _), (own, _) in functions.items():
        packages[package] = packages.get(package, 0) + own
    most = sorted(packages.items(), key=lambda item: -item[1])[:TOP]
    yield Table(
        f"The same under cProfile, {calls:,} calls: self time by package",
        ("package", "µs", "share of the call"),
        [(package, own, own / whole) for package, own in most],
        ("Built-in functions count for their callers; waiting for the server is excluded.",),
    )
    top = sorted(functions.items(), key=lambda item: -item[1][0])[:TOP]
    yield Table(
        "And by function",
        ("function", "self µs", "share of the call", "calls of it"),
        [(f"{place[0]}: {place[1]}", own, own / whole, times) for place, (own, times) in top],
    )


# Part by part


def _parts(runner: asyncio.Runner, url: str, body: bytes, *, calls: int, rounds: int) -> Table:
    host = url.removeprefix("http://")
    request = requests.query(service.JOB_ID)
    headers = signature.sign(request, host, service.CREDENTIALS, time.time())
    signed = attrs.evolve(request, headers=headers)
    limiter = LocalRateLimiter(math.inf)
    client, given, bare = ours(url), ours(url), httpx.AsyncHTTPTransport()
    transport = Transport(url)
    answer = Response(status=200, headers={}, body=body)

    async def give(*_: object, **__: object) -> Response:
        return answer

    vars(given._caller.transport)["send"] = give

    async def exchange() -> None:
        await transport.send(signed, timeout=30)

    async def one_transport() -> None:
        await (await bare.handle_async_request(httpx.Request("GET", url, headers=headers))).aread()

    async def sign() -> None:
        signature.sign(requests.query(service.JOB_ID), host, service.CREDENTIALS, time.time())

    async def read() -> None:
        decode.job(body, received_at=datetime.now(UTC))

    async def parse() -> None:
        xmltodict.parse(body)

    parts: dict[str, Callable[[], Awaitable[object]]] = {
        WHOLE: partial(client.query, service.JOB_ID),
        EXCHANGE: exchange,
        HTTPX: one_transport,
        AROUND: partial(given.query, service.JOB_ID),
        DECODE: read,
        XMLTODICT: parse,
        SIGN: sign,
        LIMITER: limiter.acquire,
    }

    def cpu(part: Callable[[], Awaitable[object]]) -> float:
        return runner.run(_cpu(part, calls))

    cases = {name: partial(cpu, part) for name, part in parts.items()}
    costs = {name: Sample.of(values) for name, values in interleaved(cases, rounds).items()}
    for connection in (client, given, transport, bare):
        runner.run(connection.aclose())
    both = zip(costs[WHOLE].values, costs[EXCHANGE].values, costs[AROUND].values, strict=True)
    costs[REST] = Sample.of(whole - exchange - around for whole, exchange, around in both)
    return Table(
        f"Where the CPU time of a call goes, part by part, {rounds} rounds of {calls:,} calls",
        ("part", "µs", "share of the call"),
        [(name, cost, cost / costs[WHOLE]) for name, cost in costs.items()],
    )


async def _cpu(part: Callable[[], Awaitable[object]], calls: int) -> float:
    """Return the CPU microseconds of a call, over so many made one after the other."""
    await part()
    gc.collect()
    began = time.process_time()
    for _ in range(calls):
        await part()
    return (time.process_time() - began) / calls * 1e6


# Under cProfile


async def _profile(url: str, calls: int) -> dict[tuple[str, str], tuple[float, float]]:
    """Return self time in µs and number of calls, per call, by package and function."""
    profile = cProfile.Profile()
    async with ours(url) as client:
        await client.query(service.JOB_ID)
        profile.enable()
        for _ in range(calls):
            await client.query(service.JOB_ID)
        profile.disable()
    stats: Any = pstats.Stats(profile)
    own: defaultdict[tuple[str, str], float] = defaultdict(float)
    times: defaultdict[tuple[str, str], float] = defaultdict(float)
    for (file, _, name), (_, count, self_time, _, callers) in stats.stats.items():
        if "'poll' of 'select" in name:
            continue
        if file != "~":
            own[_package(file), name] += self_time
            times[_package(file), name] += count
            continue
        for (caller_file, _, caller), (_, _, spent, _) in callers.items():
            own[_package(caller_file), caller] += spent
    return {place: (own[place] / calls * 1e6, times[place] / calls) for place in own}


def _package(file: str) -> str:
    """Return the package of a file, or the module of the standard library."""
    if file.startswith("<attrs"):
        return "generated by attrs"
    parts = PurePath(file).with_suffix("").parts
    for root in ("site-packages", LIBRARY):
        if root in parts:
            return parts[parts.index(root) + 1]
    return "ci_live_audit" if "ci_live_audit" in parts else file
