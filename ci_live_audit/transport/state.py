"""How far an exchange got, and the error that follows if it got no further."""

from __future__ import annotations

import errno
from typing import Any

import attrs

from ci_live_audit.errors import RequestTimeout, TransportError, strip_context
from ci_live_audit.wire.responses import Response

__all__ = ["ExchangeState"]

# What certainly did not reach the server. By name, for each library of the family has its own.
UNSENT = {
    "ConnectError",
    "ConnectTimeout",
    "PoolTimeout",
    "ProxyError",
    "ConnectionRefusedError",
    "UnsupportedProtocol",
    "LocalProtocolError",
    "InvalidURL",
}


@attrs.define
class ExchangeState:
    """How far an exchange got.

    Attributes:
        sent: Whether the request began to leave; None if only the error can tell.
        reused: Whether the connection had been idle.
        head: The head of the response, once it has arrived.
    """

    sent: bool | None = None
    reused: bool = False
    head: Response | None = None

    def explain(self, problem: Exception, timeout: float) -> TransportError:
        """Return the error for what a library raised at this point of an exchange.

        Args:
            problem: What was raised.
            timeout: Seconds that the exchange was given.
        """
        kinds = {kind.__name__ for kind in type(problem).__mro__}
        sent = not kinds & UNSENT if self.sent is None else self.sent
        if kinds & {"TimeoutError", "TimeoutException"}:
            phase = "response" if sent else "connection"
            error: TransportError = RequestTimeout(f"no {phase} within {timeout:g} s", sent=sent)
        else:
            reason = f"{type(problem).__name__}: {problem}".rstrip(": ")
            if _is_out_of_descriptors(problem):
                reason = f"too many open files: {reason}; lower max_connections or raise the limit"
            error = TransportError(reason, sent=sent, reused=self.reused and self.head is None)
        error.__cause__ = strip_context(problem)
        return error


def _is_out_of_descriptors(problem: Any) -> bool:
    """Return whether a problem, or the cause of it, is that nothing more can be opened."""
    if problem is None or getattr(problem, "errno", None) in {errno.EMFILE, errno.ENFILE}:
        return problem is not None
    # Of several addresses of a server, each has a cause of its own.
    causes = [problem.__cause__, *getattr(problem, "exceptions", ())]
    return any(map(_is_out_of_descriptors, causes))
