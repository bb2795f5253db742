"""``doctor``: whether everything that a call needs is there, one thing after the other."""

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

from ci_live_audit.cli.output import Exit
from ci_live_audit.cli.session import Settings
from ci_live_audit.credentials.chain import search
from ci_live_audit.errors import AccessDenied, JobNotFound, LiveAuditError
from ci_live_audit.wire.responses import http_date

__all__ = ["doctor"]

PACKAGES = ("ci-live-audit", "httpx", "httpcore", "anyio", "aiolimiter", "xmltodict", "attrs")
#: A well-formed id that no job has.
NOBODY = "av00000000000000000000000000000000"
PATIENCE = 10.0
#: Seconds by which a clock may be off without a signature being refused.
TOLERANCE = 30.0


@attrs.frozen
class _Check:
    name: str
    good: bool
    text: str


async def doctor(settings: Settings) -> int:
    """Check everything and tell what was found; nothing secret."""
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
        place, found = await asyncio.to_thread(search)
    except LiveAuditError as error:
        yield _Check("credentials", False, str(error))
        return
    token = "with" if found.token else "without"
    yield _Check("credentials", True, f"from {place}; {token} a token")
    server = urlsplit(base_url)
    reached = True
    async for check in _reach(server):
        reached = reached and (check.good or check.name == "clock")
        yield check
    if reached:
        yield await _ask(settings)


def _versions() -> str:
    found: list[str] = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} missing")
    return ", ".join(found)


async def _reach(server: SplitResult) -> AsyncGenerator[_Check, None]:
    """Whether the host answers, with a certificate if it should have one, and what time it has."""
    try:
        where, head = await _ask_for_head(server)
    except asyncio.IncompleteReadError:
        yield _Check("network", False, f"{server.hostname}: it hangs up without an answer")
        return
    except (OSError, UnicodeError, asyncio.LimitOverrunError) as problem:
        reason = str(problem) or f"no answer within {PATIENCE:g} s"
        yield _Check("network", False, f"{server.hostname}: {reason}")
        return
    yield _Check("network", True, where)
    date = re.search(r"(?im)^date: *(.*?)\r?$", head.decode("latin-1"))
    moment = http_date(date[1]) if date else None
    if moment is not None:
        off = (datetime.now(UTC) - moment).total_seconds()
        yield _Check("clock", abs(off) < TOLERANCE, f"{off:+.0f} s against the service's")


async def _ask_for_head(server: SplitResult) -> tuple[str, bytes]:
    """The address that answers, with the version of TLS, and the head of its answer."""
    secure = server.scheme == "https"
    port = server.port or (443 if secure else 80)
    context = ssl.create_default_context() if secure else None
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(server.hostname, port, ssl=context)
        with closing(writer):
            address = writer.get_extra_info("peername")[0]
            session = writer.get_extra_info("ssl_object")
            writer.write(f"HEAD / HTTP/1.1\r\nHost: {server.netloc}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
    return " ".join(filter(None, [address, session and session.version()])), head


async def _ask(settings: Settings) -> _Check:
    """Ask for a job that does not exist: the answer says whether signatures are accepted."""
    async with settings.client() as client:
        try:
            await client.query(NOBODY)
        except JobNotFound:
            pass
        except LiveAuditError as error:
            # The others of its kind are about the key, the signature or the clock.
            allowed = isinstance(error, AccessDenied) and error.code == "AccessDenied"
            hint = "; may this account do ci:DescribeAuditingJob?" if allowed else ""
            return _Check("service", False, f"{error}{hint}")
    return _Check("service", True, "it accepts these credentials")
