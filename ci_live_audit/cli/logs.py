"""What ``-v`` and ``-vv`` log to standard error."""

from __future__ import annotations

import logging
import sys

__all__ = ["StandardError", "log_attempts"]


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


def log_attempts(*, everything: bool) -> None:
    """Log attempts to standard error, or everything."""
    logging.basicConfig(format="%(asctime)s %(name)s %(message)s", stream=StandardError())
    logging.getLogger(None if everything else "ci_live_audit").setLevel(logging.DEBUG)
