"""How far an exchange got, and the error that follows if it got no further."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Sequence

import attrs

from ci_live_audit.errors import RequestTimeout, TransportError, chain, strip_context
from ci_live_audit.transport.memory import Share
from ci_live_audit.wire.endpoint import region_hint
from ci_live_audit.wire.responses import Response

__all__ = ["DOCTOR", "ExchangeState", "place"]

#: What helps where a server cannot be reached.
DOCTOR = " Try: ci-live-audit doctor"

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
# What did not reach it although there was a connection, or before there could be one.
CONNECTED = {"LocalProtocolError", "InvalidURL", "UnexpectedBytes"}
# What OpenSSL says where client and server share no version of TLS or no cipher.
NOTHING_SHARED = {
    "NO_PROTOCOLS_AVAILABLE",
    "SSLV3_ALERT_HANDSHAKE_FAILURE",
    "TLSV1_ALERT_INSUFFICIENT_SECURITY",
    "TLSV1_ALERT_PROTOCOL_VERSION",
    "UNSUPPORTED_PROTOCOL",
}


# What the system says where there is nobody, or no way.
UNREACHED = {
    errno.ECONNREFUSED: "connection refused",
    errno.EHOSTUNREACH: "no route to it",
    errno.ENETUNREACH: "no network leads there",
}


@attrs.define
class ExchangeState:
    """How far an exchange got.

    Attributes:
        share: The memory that a large response takes.
        route: Host and port of the server, and of a proxy; empty until they are known.
        sent: Whether the request began to leave; None if only the error can tell.
        reused: Whether the connection had been idle.
        head: The head of the response, once it has arrived.
    """

    share: Share
    route: str = ""
    sent: bool | None = None
    reused: bool = False
    head: Response | None = None

    def explain(self, problem: Exception, timeout: float) -> TransportError:
        """Return the error for what a library raised at this point of an exchange.

        Args:
            problem: What was raised.
            timeout: Seconds that the exchange was given.
        """
        # httpx's pool drops the cause but not the context; each address of a server has its own.
        causes = chain(problem)
        kinds = {kind.__name__ for kind in type(problem).__mro__}
        sent = not kinds & UNSENT if self.sent is None else self.sent
        route = f" ({self.route})" if self.route and not (sent or kinds & CONNECTED) else ""
        if kinds & {"TimeoutError", "TimeoutException"}:
            phase = "response" if sent else "connection"
            within = f"{timeout:g} s"
            if self.share.waited:
                within += f", and {self.share.waited:g} s in line for max_memory"
            reason = f"no {phase} within {within}{route}"
            error: TransportError = RequestTimeout(reason, sent=sent)
        else:
            reason = f"{type(problem).__name__}: {problem}".rstrip(": ")
            if any(map(_is_out_of_descriptors, causes)):
                reason = f"too many open files: {reason}; lower max_connections or raise the limit"
            elif route and (obstacle := _obstacle(causes, self.route)):
                end = "" if obstacle.endswith("?") else "."
                reason = f"cannot reach {self.route}: {obstacle}{end}{DOCTOR}"
            else:
                reason += route
            error = TransportError(reason, sent=sent, reused=self.reused and self.head is None)
        error.transient = not any(map(_is_lasting, causes))
        error.__cause__ = strip_context(problem)
        return error


def place(host: str, port: int) -> str:
    """Return a host and its port as one text."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _obstacle(causes: Sequence[BaseException], route: str) -> str:
    """Return in words why there is no connection; nothing if it takes others than these."""
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            if cause.errno == socket.EAI_AGAIN:
                return "names cannot be looked up at the moment"
            return f"name not known{region_hint(route)}"
        if isinstance(cause, OSError) and cause.errno in UNREACHED:
            return UNREACHED[cause.errno]
    return ""


def _is_out_of_descriptors(problem: BaseException) -> bool:
    """Return whether a problem is that nothing more can be opened."""
    return getattr(problem, "errno", None) in {errno.EMFILE, errno.ENFILE}


def _is_lasting(problem: BaseException) -> bool:
    """Return whether a problem is one of configuration: trying again does not help."""
    if isinstance(problem, ssl.SSLError):
        return isinstance(problem, ssl.SSLCertVerificationError) or problem.reason in NOTHING_SHARED
    return type(problem).__name__ == "ProxyError" and str(problem)[:3] in {"401", "403", "407"}
