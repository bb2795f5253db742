"""``doctor``: check everything that a call needs, one thing after the other."""

from __future__ import annotations

import asyncio
import platform
import re
import ssl
from collections.abc import AsyncGenerator
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from urllib.parse import SplitResult, urlsplit

import attrs

from ci_live_audit._version import __version__
from ci_live_audit.cli.output import Exit
from ci_live_audit.cli.session import Settings
from ci_live_audit.credentials.chain import search
from ci_live_audit.errors import AccessDenied, JobNotFound, LiveAuditError
from ci_live_audit.wire.responses import http_date

__all__ = ["doctor"]

PACKAGES = ("httpx", "httpcore", "anyio", "aiolimiter", "xmltodict", "attrs")
#: A well-formed id that no job has.
NO_JOB = "av00000000000000000000000000000000"
#: Seconds that the network check may take.
TIMEOUT = 10.0
#: Seconds by which a clock may be off without signatures being refused.
TOLERANCE = 30.0


@attrs.frozen
class _Check:
    name: str
    good: bool
    text: str


async def doctor(settings: Settings) -> int:
    """Run all checks and print their results, which contain no secret; return the exit code."""
    bad = False
    async for check in _checks(settings):
        bad = bad or not check.good
        if settings.output.json:
            settings.output.result("check", attrs.asdict(check))
        else:
            settings.output.checked(check.name, check.text, good=check.good)
    return Exit.ERROR if bad else Exit.OK


async def _checks(settings: Settings) -> AsyncGenerator[_Check, None]:
    yield _Check("versions", True, f"Python {platform.python_version()}, {_versions()}")
    try:
        base_url = settings.base_url()
    except LiveAuditError as error:
        yield _Check("settings", False, str(error))
        return
    yield _Check("settings", True, base_url)
    try:
        source, credentials = await asyncio.to_thread(search)
    except LiveAuditError as error:
        yield _Check("credentials", False, str(error))
        return
    token = "with" if credentials.token else "without"
    yield _Check("credentials", True, f"from {source}; {token} a token")
    reached = True
    async for check in _reach(urlsplit(base_url)):
        reached = reached and (check.good or check.name == "clock")
        yield check
    if reached:
        yield await _query(settings)


def _versions() -> str:
    found = [f"ci-live-audit {__version__}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} missing")
    return ", ".join(found)


async def _reach(server: SplitResult) -> AsyncGenerator[_Check, None]:
    """Check whether the host responds, over TLS if it should, and compare the clocks."""
    try:
        address, head = await _head(server)
    except asyncio.IncompleteReadError:
        yield _Check("network", False, f"{server.hostname}: it hung up without a response")
        return
    except (OSError, UnicodeError, asyncio.LimitOverrunError) as problem:
        reason = str(problem) or f"no response within {TIMEOUT:g} s"
        yield _Check("network", False, f"{server.hostname}: {reason}")
        return
    yield _Check("network", True, address)
    date = re.search(r"(?im)^date: *(.*?)\r?$", head.decode("latin-1"))
    time = http_date(date[1]) if date else None
    if time is not None:
        ahead = (datetime.now(UTC) - time).total_seconds()
        text = f"{ahead:+.0f} s relative to the service"
        yield _Check("clock", abs(ahead) < TOLERANCE, text)


async def _head(server: SplitResult) -> tuple[str, bytes]:
    """Return the server's address with the version of TLS, and the head of a response."""
    secure = server.scheme == "https"
    port = server.port or (443 if secure else 80)
    context = ssl.create_default_context() if secure else None
    async with asyncio.timeout(TIMEOUT):
        reader, writer = await asyncio.open_connection(server.hostname, port, ssl=context)
        with closing(writer):
            address = writer.get_extra_info("peername")[0]
            session = writer.get_extra_info("ssl_object")
            writer.write(f"HEAD / HTTP/1.1\r\nHost: {server.netloc}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
    return " ".join(filter(None, [address, session and session.version()])), head


async def _query(settings: Settings) -> _Check:
    """Query a job that does not exist; the error shows whether signatures are accepted."""
    try:
        async with settings.client() as client:
            await client.query(NO_JOB)
    except JobNotFound:
        pass
    except LiveAuditError as error:
        # With any other code it is about the key, the signature or the clock.
        denied = isinstance(error, AccessDenied) and error.code == "AccessDenied"
        hint = "; is this account allowed to do ci:DescribeAuditingJob?" if denied else ""
        return _Check("service", False, f"{error}{hint}")
    return _Check("service", True, "it accepts the credentials")
