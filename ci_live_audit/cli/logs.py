"""What ``-v`` and ``-vv`` log to standard error."""

from __future__ import annotations

import logging
import sys

from ci_live_audit.retry import Attempt

__all__ = ["Formatter", "StandardError", "log_attempts"]


class StandardError:
    """Writes to the current `sys.stderr`, which a progress bar may have replaced."""

    def write(self, text: str) -> None:
        """Write a text, of which nothing moves the cursor of a terminal."""
        kept = "\t\n"  # of tracebacks
        signs = (
            one if one.isprintable() or one in kept else one.encode("unicode_escape").decode()
            for one in text
        )
        sys.stderr.write("".join(signs))


class Formatter(logging.Formatter):
    """Puts attempts into words."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the line of a record."""
        args = record.args
        if isinstance(args, tuple) and len(args) == 1 and isinstance(args[0], Attempt):
            record.message = _told(args[0])
        return super().formatMessage(record)


def log_attempts(*, everything: bool) -> None:
    """Log attempts to standard error, or everything."""
    handler = logging.StreamHandler(StandardError())
    handler.setFormatter(Formatter("%(asctime)s %(name)s %(message)s"))
    logging.basicConfig(handlers=[handler])
    logging.getLogger(None if everything else "ci_live_audit").setLevel(logging.DEBUG)


def _told(attempt: Attempt) -> str:
    """Return an attempt as a sentence."""
    what = (
        attempt.operation if attempt.job_id is None else f"{attempt.operation} of {attempt.job_id}"
    )
    parts = [f"{what}, attempt {attempt.number}: "]
    parts.append(f"{attempt.status or 'no response'} after {attempt.elapsed:.3f} s")
    if attempt.queued >= 0.001:
        parts.append(f", {attempt.queued:.3f} s in line before")
    if attempt.request_id:
        parts.append(f" [request id {attempt.request_id}]")
    if attempt.error is not None:
        parts.append(f"; {attempt.error}")
    if attempt.delay is not None:
        parts.append(f"; again in {attempt.delay:.3f} s")
    return "".join(parts)
