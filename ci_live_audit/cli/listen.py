"""``listen``: receive callbacks, and print them as JSON Lines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shlex
import stat
from collections.abc import Sequence
from pathlib import Path

from ci_live_audit.callbacks.receiver import CallbackReceiver
from ci_live_audit.cli.output import Exit, Output
from ci_live_audit.errors import ConfigurationError
from ci_live_audit.wire.callbacks import Callback

__all__ = ["listen"]

#: Seconds for printing what has been answered, once the command is to end.
GRACE = 5.0


async def listen(
    output: Output,
    *,
    host: str,
    port: int,
    secret_file: Path,
    base: str | None,
    data_ids: Sequence[str],
) -> int:
    """Receive until interrupted; print callbacks to standard output."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    problems: list[OSError] = []

    def show(callback: Callback) -> None:
        try:
            output.result("callback", callback.to_dict())
        except OSError as problem:
            problems.append(problem)
            loop.call_soon_threadsafe(stop.set)

    try:
        receiver = CallbackReceiver(_secrets(secret_file, output), on_callback=show)
    except ConfigurationError as problem:
        raise ConfigurationError(f"{secret_file}: {problem}") from None
    streams: Sequence[str | None] = data_ids or [None]
    for data_id in streams:
        receiver.url(base or "http://localhost", data_id)  # what is malformed is told before
    async with _serve(receiver, host, port) as url:
        output.say(f"The receiver is listening at {url}. Submit streams with")
        for data_id in streams:
            options = ["--callback", receiver.url(base or url, data_id)]
            options += [] if data_id is None else ["--data-id", data_id]
            output.say(f"  {shlex.join(options)}")
        with contextlib.suppress(asyncio.CancelledError):
            await stop.wait()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GRACE):
            await receiver.join()
    if problems:
        raise problems[0]
    results = (f"{count:,} {result}" for result, count in receiver.counts.items() if count)
    output.say(", ".join(results) or "no callbacks")
    return Exit.OK


def _serve(
    receiver: CallbackReceiver, host: str, port: int
) -> contextlib.AbstractAsyncContextManager[str]:
    try:
        from ci_live_audit.testing.serving import serve  # noqa: PLC0415 - needs the extra
    except ImportError:
        text = 'receiving callbacks needs uvicorn: pip install "ci-live-audit[emulator]"'
        raise ConfigurationError(text) from None
    return serve(receiver, host, port)


def _secrets(path: Path, output: Output) -> list[bytes]:
    """Return the secrets in a file, one a line; write one if there is no file."""
    with contextlib.suppress(FileExistsError):
        new = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(new, "w") as file:
            file.write(f"{secrets.token_urlsafe(32)}\n")
        output.say(f"made a secret in {path}")
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        output.say(f"warning: others may read {path}: chmod 600 {shlex.quote(str(path))}")
    return [line.strip() for line in path.read_bytes().splitlines() if line.strip()]
