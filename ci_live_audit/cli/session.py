"""What every command that talks to the service shares: its client, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import attrs

from ci_live_audit.cli.output import Exit, Output
from ci_live_audit.client import LiveAuditClient
from ci_live_audit.credentials.chain import search
from ci_live_audit.errors import ConfigurationError, LiveAuditError
from ci_live_audit.retry import RetryPolicy
from ci_live_audit.wire import endpoint

__all__ = ["Settings", "run"]


@attrs.frozen(kw_only=True)
class Settings:
    """The options that all commands have."""

    bucket: str | None
    region: str | None
    endpoint: str | None
    allow_http: bool
    rate: float
    timeout: float
    attempts: int
    output: Output

    def client(self, **options: Any) -> LiveAuditClient:
        """A client as the options say; credentials come from where Tencent's tools keep them."""
        return LiveAuditClient(
            self.known_bucket(),
            self.known_region(),
            endpoint=self.endpoint,
            allow_http=self.allow_http,
            rate=self.rate,
            timeout=self.timeout,
            retry=RetryPolicy(attempts=self.attempts),
            **options,
        )

    async def look_for_credentials(self) -> None:
        """Before a run over many jobs: without credentials it would end with an error for each.

        Raises:
            CredentialsError: There are none.
        """
        await asyncio.to_thread(search)

    def known_bucket(self) -> str:
        """The bucket.

        Raises:
            ConfigurationError: None was given.
        """
        if not self.bucket:
            raise ConfigurationError("bucket: pass --bucket or set CI_LIVE_AUDIT_BUCKET")
        return self.bucket

    def known_region(self) -> str:
        """The region.

        Raises:
            ConfigurationError: None was given.
        """
        if not self.region:
            raise ConfigurationError("region: pass --region or set TENCENTCLOUD_REGION")
        return self.region

    def base_url(self) -> str:
        """Where requests are sent.

        Raises:
            ConfigurationError: Bucket, region or endpoint cannot be used.
        """
        return endpoint.base_url(
            self.known_bucket(), self.known_region(), self.endpoint, allow_http=self.allow_http
        )


def run(main: Callable[[], Awaitable[int]]) -> NoReturn:
    """Run a command and exit with its code.

    The first Ctrl-C cancels it, so that it can clean up and sum up; the second ends it at once.
    """
    code: int
    try:
        code = asyncio.run(_until_terminated(main))
    except (KeyboardInterrupt, asyncio.CancelledError):
        code = Exit.INTERRUPTED
    except BrokenPipeError:
        # Whoever read the results has gone; the interpreter must not try to flush the rest.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        code = Exit.PIPE_CLOSED
    except (LiveAuditError, OSError) as error:
        Output().say(f"error: {error}")
        code = Exit.ERROR
    sys.exit(code)


async def _until_terminated(main: Callable[[], Awaitable[int]]) -> int:
    """As a Ctrl-C, SIGTERM is a request to end cleanly: it is what containers are sent."""
    task = asyncio.current_task()
    assert task is not None
    with contextlib.suppress(NotImplementedError):  # on Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await main()
