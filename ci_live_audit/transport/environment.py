"""What the environment says about the way to the server: a proxy, trusted certificates.

https://www.python-httpx.org/environment_variables/
"""

from __future__ import annotations

import importlib.util
import os
import re
import urllib.request
from typing import NamedTuple
from urllib.parse import urlsplit

from ci_live_audit.errors import ConfigurationError
from ci_live_audit.transport.state import place
from ci_live_audit.wire.endpoint import is_this_machine

__all__ = ["Certificates", "Proxy", "certificates", "proxy"]

PROXY = re.compile(
    r"((?i:https?|socks5h?)://)?([^\s/?#]*@)?([^\s/?#@:\"'\[\]]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/?"
)
PROXY_FORM = (
    "expected http, https or socks5, a host and optionally a port, as in http://user:password@"
    "proxy.example.com:3128; blanks, slashes and other signs of a password are percent-encoded"
)


class Proxy(NamedTuple):
    """A proxy: its URL, which may hold a password, and the variables that name it."""

    url: str
    named_by: str

    def __repr__(self) -> str:
        return f"Proxy(named_by={self.named_by!r})"

    @property
    def address(self) -> str:
        """The URL without user and password."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    def unusable(self, why: str = PROXY_FORM) -> ConfigurationError:
        """Return the error that says that the proxy cannot be used."""
        # The text of an error about the URL may quote a part of the password.
        return ConfigurationError(f"the proxy of the environment ({self.named_by}): {why}")


def proxy(base_url: str) -> Proxy | None:
    """Return the proxy on the way to a server.

    Raises:
        ConfigurationError: It cannot be used.
    """
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    proxies = {} if is_this_machine(host) else urllib.request.getproxies()
    port = parts.port or {"https": 443, "http": 80}[parts.scheme]
    bypass = any(map(urllib.request.proxy_bypass, (host, place(host, port))))
    kind = parts.scheme if proxies.get(parts.scheme) else "all"
    url = proxies.get(kind)
    if bypass or url is None:
        return None
    names = [name for name in os.environ if name.lower() == f"{kind}_proxy"]
    found = Proxy(url if "://" in url else f"http://{url}", ", ".join(names) or "its settings")
    form = PROXY.fullmatch(url)
    if form is None or int((form[4] or ":0")[1:]) > 65535:
        raise found.unusable()
    if url.lower().startswith("socks5") and importlib.util.find_spec("socksio") is None:
        raise found.unusable("SOCKS needs the package socksio: pip install 'httpx[socks]'")
    return found


class Certificates(NamedTuple):
    """The trusted certificates: the variable, the file or folder it names, and when that changed.

    Without a variable they are the common authorities.
    """

    variable: str = ""
    place: str = ""
    changed: int = 0

    def unreadable(self, problem: OSError) -> ConfigurationError:
        """Return the error that says that they cannot be read."""
        reason = problem.strerror or str(problem)
        return ConfigurationError(
            f"{self.variable}: no certificates can be read from {self.place!r} ({reason})"
        )


def certificates() -> Certificates:
    """Return the certificates that the environment names.

    Raises:
        ConfigurationError: There is no such file or folder, or it may not be read.
    """
    variable = "SSL_CERT_FILE" if os.environ.get("SSL_CERT_FILE") else "SSL_CERT_DIR"
    where = os.environ.get(variable)
    if not where:
        return Certificates()
    found = Certificates(variable, where)
    try:
        # OpenSSL takes a missing folder for an empty one.
        if variable == "SSL_CERT_DIR":
            os.scandir(where).close()
        else:
            os.close(os.open(where, os.O_RDONLY))
        return found._replace(changed=os.stat(where).st_mtime_ns)  # noqa: PTH116
    except OSError as problem:
        raise found.unreadable(problem) from None
