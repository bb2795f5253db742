"""The settings shared by all commands that call the service, and how a command is run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import NoReturn

import attrs

from ci_live_audit._threads import Threads
from ci_live_audit.cli import interrupts
from ci_live_audit.cli.output import Exit, Output
from ci_live_audit.client import LiveAuditClient
from ci_live_audit.credentials.chain import IN_PYTHON, search
from ci_live_audit.credentials.values import Credentials
from ci_live_audit.errors import (
    ConfigurationError,
    CredentialsError,
    LiveAuditError,
    TransportError,
)
from ci_live_audit.retry import Attempt, RetryPolicy
from ci_live_audit.wire import endpoint

__all__ = ["Settings", "end_cancellation", "found_credentials", "run"]


class _OutageTeller:
    """Says at once, and once, that the service cannot be reached while attempts go on."""

    def __init__(self, output: Output, *, polls: bool) -> None:
        self._output = output
        self._polls = polls
        self._told = False

    def __call__(self, attempt: Attempt) -> None:
        error = attempt.error
        lost = isinstance(error, TransportError) and not error.sent and error.transient
        goes_on = self._polls or attempt.delay is not None
        if lost and goes_on and not self._told:
            self._output.say(f"warning: {error}")
        self._told = lost or (self._told and error is not None)


class _WarningTeller(logging.Handler):
    """Says at once what is wrong with Redis; ``-v`` logs it as well."""

    def __init__(self, output: Output) -> None:
        super().__init__(logging.WARNING)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        self._output.say(f"warning: {record.getMessage()}")


@attrs.frozen(kw_only=True)
class Settings:
    """The options shared by all commands that call the service."""

    bucket: str | None
    region: str | None
    endpoint: str | None
    allow_http: bool
    rate: float
    timeout: float
    attempts: int
    redis: str | None = attrs.field(default=None, repr=False)  # it may hold a password
    output: Output

    @contextlib.asynccontextmanager
    async def client(self, *, polls: bool = False) -> AsyncGenerator[LiveAuditClient, None]:
        """Make a client with these settings; credentials come from the default chain.

        Args:
            polls: Whether a command goes on after a failed call.
        """
        async with contextlib.AsyncExitStack() as stack:
            limiter = None
            if self.redis:
                from ci_live_audit.redis import RedisRateLimiter  # noqa: PLC0415 - 15 ms

                logger = logging.getLogger("ci_live_audit.redis")
                teller = _WarningTeller(self.output)
                logger.addHandler(teller)
                stack.callback(logger.removeHandler, teller)
                limiter = RedisRateLimiter(self.redis, rate=self.rate)
                await stack.enter_async_context(limiter)
            client = LiveAuditClient(
                self.required_bucket(),
                self.required_region(),
                credentials=lambda: found_credentials()[1],
                endpoint=self.endpoint,
                allow_http=self.allow_http,
                rate=self.rate,
                limiter=limiter,
                timeout=self.timeout,
                retry=RetryPolicy(attempts=self.attempts),
                on_attempt=_OutageTeller(self.output, polls=polls),
            )
            yield await stack.enter_async_context(client)

    async def require_credentials(self) -> None:
        """Raise once, before a run over many jobs, rather than for each of them.

        Raises:
            CredentialsError: No credentials were found.
        """
        await Threads(1).run(found_credentials)

    def required_bucket(self) -> str:
        """Return the bucket.

        Raises:
            ConfigurationError: No bucket was given.
        """
        if not self.bucket:
            raise ConfigurationError("bucket: pass --bucket or set CI_LIVE_AUDIT_BUCKET")
        return self.bucket

    def required_region(self) -> str:
        """Return the region.

        Raises:
            ConfigurationError: No region was given.
        """
        if not self.region:
            raise ConfigurationError("region: pass --region or set TENCENTCLOUD_REGION")
        return self.region

    def base_url(self) -> str:
        """Return the URL to which requests are sent.

        Raises:
            ConfigurationError: Bucket, region or endpoint is missing or malformed.
        """
        return endpoint.base_url(
            self.required_bucket(),
            self.required_region(),
            self.endpoint,
            allow_http=self.allow_http,
        )


def found_credentials() -> tuple[str, Credentials]:
    """Return where there are credentials, and the credentials; blocks.

    Raises:
        CredentialsError: There are none, or they cannot be used.
    """
    try:
        return search()
    except CredentialsError as problem:
        raise CredentialsError(str(problem).partition(IN_PYTHON)[0]) from None


def end_cancellation() -> None:
    """Let the current task go on after the cancellation that Ctrl-C or SIGTERM has been."""
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()


def run(main: Callable[[], Awaitable[int]]) -> NoReturn:
    """Run a command and exit with its code.

    The first Ctrl-C cancels the command, so that it can clean up and print a summary; the second
    ends it at once.
    """
    code: int
    try:
        code = asyncio.run(_cancelled_by_signals(main))
    except (KeyboardInterrupt, asyncio.CancelledError):
        code = Exit.INTERRUPTED
    except BrokenPipeError:
        code = Exit.PIPE_CLOSED  # the reader of the results has gone
    except (LiveAuditError, OSError) as error:
        Output().say(f"error: {error}")
        code = Exit.ERROR
    sys.exit(code)


async def _cancelled_by_signals(main: Callable[[], Awaitable[int]]) -> int:
    """Run a command and cancel it on Ctrl-C and on SIGTERM, which containers are sent."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    with contextlib.suppress(NotImplementedError):  # on Windows
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        with interrupts.cancelling(lambda: loop.call_soon_threadsafe(task.cancel)):
            return await main()
    finally:
        # A loop that closes with a handler complains of every signal that comes meanwhile.
        with contextlib.suppress(NotImplementedError):
            loop.remove_signal_handler(signal.SIGTERM)
