"""Where requests are sent: the bucket's host, or an endpoint in its place."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from ci_live_audit._checks import text
from ci_live_audit.errors import ConfigurationError

__all__ = ["base_url", "host", "is_this_machine", "url_fault"]


def host(bucket: str, region: str) -> str:
    """The host that serves a bucket's jobs; both names are checked first."""
    bucket, region = text("bucket", bucket), text("region", region)
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?-[0-9]{5,12}", bucket):
        raise ConfigurationError(
            f"bucket: expected a name with its APPID, as examplebucket-1250000000; got {bucket!r}"
        )
    if not re.fullmatch(r"[a-z]{2}(-[a-z0-9]{1,20}){1,3}", region):
        raise ConfigurationError(f"region: expected a name as ap-beijing; got {region!r}")
    return f"{bucket}.ci.{region}.myqcloud.com"


def base_url(
    bucket: str, region: str, endpoint: str | None = None, *, allow_http: bool = False
) -> str:
    """Where requests are sent: to the bucket's host, or to the endpoint in its place.

    Args:
        bucket: Bucket with its APPID.
        region: Region.
        endpoint: http or https, a host, and perhaps a port.
        allow_http: Whether it may be http on another machine.
    """
    url = f"https://{host(bucket, region)}"
    if endpoint is None:
        return url
    shape = r"(https?)://([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/?"
    endpoint = text("endpoint", endpoint)
    found = re.fullmatch(shape, endpoint)
    fault = url_fault(endpoint, {"http", "https"}) if found else "it is none, or more than that"
    if not found or fault is not None:
        # It is not quoted: it may hold a password.
        raise ConfigurationError(
            f"endpoint: expected http or https, a host and perhaps a port, but {fault}"
        )
    if found[1] == "http" and not allow_http and not is_this_machine(found[2].strip("[]")):
        raise ConfigurationError(
            f"endpoint: {found[2]} without TLS would show token and signature to everybody on the "
            "way; use https, or say allow_http=True (--allow-http)"
        )
    return endpoint.rstrip("/")


def is_this_machine(name: str) -> bool:
    """Whether a host is this machine, by its address or its name."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:  # https://www.rfc-editor.org/rfc/rfc6761#section-6.3
        return name == "localhost" or name.endswith(".localhost")


def url_fault(url: str, schemes: set[str]) -> str | None:
    """Return what is wrong with a URL that must have one of ``schemes``; None if nothing is."""
    if re.search(r"\s", url):
        return "it has a blank in it"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as problem:
        return str(problem)
    if parts.scheme not in schemes:
        return f"its scheme is {parts.scheme[:20]!r}"
    if not parts.hostname:
        return "it names no host"
    return "its port is 0" if port == 0 else None
