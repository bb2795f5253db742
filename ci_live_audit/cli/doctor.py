"""``doctor``: check everything that a call needs, one thing after the other."""

from __future__ import annotations

import platform
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter
from urllib.parse import urlsplit

import attrs

from ci_live_audit._redis import RedisRefused, RedisUnavailable, Server
from ci_live_audit._threads import Threads
from ci_live_audit._version import __version__
from ci_live_audit.cli.output import Exit
from ci_live_audit.cli.session import Settings, found_credentials
from ci_live_audit.errors import ConfigurationError, JobNotFound, LiveAuditError, ServiceError
from ci_live_audit.redis import RedisRateLimiter
from ci_live_audit.transport import environment
from ci_live_audit.transport.exchange import Transport
from ci_live_audit.transport.state import DOCTOR
from ci_live_audit.wire import endpoint, requests

__all__ = ["doctor"]

PACKAGES = ("httpx", "httpcore", "anyio", "aiolimiter", "xmltodict", "attrs")
#: A well-formed id that no job has.
NO_JOB = "av00000000000000000000000000000000"
#: Where keys are made, and disabled.
KEYS = "https://console.tencentcloud.com/cam/capi"
#: What may be wrong, by the code with which the service refuses.
HINTS = {
    "AccessDenied": "is this account allowed to do ci:DescribeAuditingJob?",
    "InvalidAccessKeyId": f"is this the id of a key that is enabled? See {KEYS}",
    "SecretidNotExist": f"is this the id of a key that is enabled? See {KEYS}",
    "NoSuchBucket": "is this the bucket's name, and its region?",
    "SignatureDoesNotMatch": "do the id and the key belong together?",
}
#: Seconds that the network check may take.
TIMEOUT = 10.0
#: Seconds after which those who wait for a slot are passed over.
LATE = 0.025
#: Seconds by which a clock may be off without signatures being refused.
TOLERANCE = 30.0


@attrs.frozen
class _Check:
    name: str
    good: bool
    text: str


async def doctor(settings: Settings) -> int:
    """Run all checks and print their results, which contain no secret; return the exit code."""
    output, bad = settings.output, list[str]()
    async for check in _checks(settings):
        if not check.good:
            bad.append(check.name)
        if output.json:
            output.result("check", attrs.asdict(check))
        else:
            output.checked(check.name, check.text, good=check.good)
    if not output.json:
        again = "mend what is marked FAIL, the first one first, and run this again"
        output.say(f"next: {again if bad else 'ci-live-audit moderate URL --cancel'}", prose=True)
    return Exit.ERROR if bad else Exit.OK


async def _checks(settings: Settings) -> AsyncGenerator[_Check, None]:
    """Make each check that can be made, whatever became of those before."""
    yield _Check("versions", True, f"Python {platform.python_version()}, {_versions()}")
    if settings.redis:
        yield await _redis(settings.redis, settings.rate)
    base_url, known = _settings(settings)
    yield known
    signed = await _credentials()
    yield signed
    reached = base_url is not None
    if base_url is not None:
        async for check in _reach(base_url):
            reached = reached and (check.good or check.name == "clock")
            yield check
    if known.good and signed.good and reached:
        yield await _query(settings)


def _settings(settings: Settings) -> tuple[str | None, _Check]:
    """Return the URL of the service, if it is known, and what is wrong with the settings."""
    problems: list[str] = []
    checks: list[Callable[[], str]] = [
        lambda: endpoint.checked_bucket(settings.required_bucket()),
        lambda: endpoint.checked_region(settings.required_region()),
    ]
    for check in checks:
        try:
            check()
        except ConfigurationError as problem:
            problems.append(str(problem))
    base_url = None
    try:
        if settings.endpoint:
            http = settings.allow_http
            base_url = endpoint.checked_endpoint(settings.endpoint, allow_http=http)
        elif not problems:
            base_url = settings.base_url()
    except ConfigurationError as problem:
        problems.append(str(problem))
    named = f"bucket {settings.bucket}, region {settings.region}, {base_url}"
    return base_url, _Check("settings", not problems, "; ".join(problems) or named)


async def _credentials() -> _Check:
    """Check whether credentials are found, and where."""
    try:
        source, credentials = await Threads(1).run(found_credentials)
    except LiveAuditError as error:
        return _Check("credentials", False, f"{error}; keys are made at {KEYS}")
    token = "with" if credentials.token else "without"
    return _Check("credentials", True, f"from {source}; {token} a token")


def _versions() -> str:
    found = [f"ci-live-audit {__version__}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} missing")
    return ", ".join(found)


async def _redis(url: str, rate: float) -> _Check:
    """Check whether Redis grants a slot, and how fast it responds."""
    try:
        limiter = RedisRateLimiter(url, rate=rate, outage="error", timeout=TIMEOUT)
        server = Server(url, TIMEOUT)
    except ConfigurationError as error:
        return _Check("redis", False, str(error))
    try:
        async with limiter, aclosing(server):
            facts = await _facts(server)
            times = [await _timed(server) for _ in range(5)]
            await limiter.acquire()
    except RedisUnavailable as fault:
        return _Check("redis", False, f"{server.place}: {fault}")
    except LiveAuditError as error:
        return _Check("redis", False, str(error))
    trip = sorted(times)[2]
    slow = trip >= LATE
    text = f"{facts}; round trip {trip * 1e3:.1f} ms"
    hint = f"; over {LATE * 1e3:.0f} ms, processes nearer to it go before"
    return _Check("redis", not slow, f"{text}{hint if slow else ''}")


async def _facts(server: Server) -> str:
    """Return the version of a server, where it is, and whether it keeps what it is told."""
    try:
        info = await server.command("INFO")
    except RedisRefused:  # the rest needs no INFO
        return f"Redis at {server.place}; its version and appendonly may not be asked for"
    appendonly = "yes" if info["aof_enabled"] else "no"
    return f"Redis {info['redis_version']} at {server.place}; appendonly {appendonly}"


async def _timed(server: Server) -> float:
    began = perf_counter()
    await server.command("PING")
    return perf_counter() - began


async def _reach(base_url: str) -> AsyncGenerator[_Check, None]:
    """Check whether the host responds to what a client would send, and compare the clocks."""
    server = urlsplit(base_url)
    request = attrs.evolve(requests.query(NO_JOB), headers={"host": server.netloc})
    try:
        way, proxied = _way(base_url)
        async with aclosing(Transport(base_url)) as transport:
            response = await transport.send(request, timeout=TIMEOUT)
    except ConfigurationError as error:  # in the environment
        yield _Check("network", False, str(error))
        return
    if not response.status:
        fault, host = str(response.error).removesuffix(DOCTOR).rstrip("."), server.hostname or ""
        where = "" if host in fault else f"{host}: "
        yield _Check("network", False, f"{where}{fault}{way}")
        return
    address, *tls = transport.peer.split()
    there = " ".join([(server.hostname or "") if proxied else address, *tls])
    yield _Check("network", True, f"{there}{way}")
    if response.date is not None:
        ahead = (datetime.now(UTC) - response.date).total_seconds()
        good = abs(ahead) < TOLERANCE
        hint = "" if good else "; set the clock of this machine"
        yield _Check("clock", good, f"{ahead:+.0f} s relative to the service{hint}")


def _way(base_url: str) -> tuple[str, bool]:
    """Return what lies between here and the service, and whether a proxy does.

    Raises:
        ConfigurationError: The environment names a proxy that cannot be used.
    """
    parts: list[str] = []
    proxy = environment.proxy(base_url)
    if proxy is not None:
        parts.append(f"through the proxy {proxy.address} ({proxy.named_by})")
    if base_url.startswith("https:"):
        trusted = environment.certificates()
        of = f"{trusted.place} ({trusted.variable})" if trusted.variable else "certifi"
        parts.append(f"certificates of {of}")
    return "".join(f"; {part}" for part in parts), proxy is not None


async def _query(settings: Settings) -> _Check:
    """Query a job that does not exist; the error shows whether signatures are accepted."""
    try:
        async with settings.client() as client:
            await client.query(NO_JOB)
    except JobNotFound:
        pass
    except LiveAuditError as error:
        hint = HINTS.get(error.code) if isinstance(error, ServiceError) else None
        return _Check("service", False, "; ".join(filter(None, [str(error), hint])))
    return _Check("service", True, "it accepts the credentials")
