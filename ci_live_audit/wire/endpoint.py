"""Where requests are sent: the bucket's host, or an endpoint in its place."""

from __future__ import annotations

import ipaddress
import re
from difflib import get_close_matches
from urllib.parse import urlsplit

from ci_live_audit._checks import text
from ci_live_audit.errors import ConfigurationError

__all__ = [
    "base_url",
    "checked_bucket",
    "checked_endpoint",
    "checked_region",
    "host",
    "is_this_machine",
    "meant_region",
    "region_hint",
    "url_fault",
]


#: Regions of the service, for suggestions: others are accepted, as there will be more.
REGIONS = (
    *("ap-beijing", "ap-nanjing", "ap-shanghai", "ap-guangzhou", "ap-chengdu", "ap-chongqing"),
    *("ap-hongkong", "ap-singapore", "ap-jakarta", "ap-mumbai", "ap-bangkok", "ap-seoul"),
    *("ap-tokyo", "na-siliconvalley", "na-ashburn", "sa-saopaulo", "eu-frankfurt"),
)


def host(bucket: str, region: str) -> str:
    """Return the host that serves the jobs of a bucket; refuse names that could change it."""
    return f"{checked_bucket(bucket)}.ci.{checked_region(region)}.myqcloud.com"


def checked_bucket(bucket: str) -> str:
    """Return the name of a bucket.

    Raises:
        ConfigurationError: It is malformed.
    """
    bucket = text("bucket", bucket)
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?-[0-9]{5,12}", bucket):
        raise ConfigurationError(
            f"bucket: expected a name with its APPID, as examplebucket-1250000000; got {bucket!r}"
        )
    return bucket


def checked_region(region: str) -> str:
    """Return the name of a region.

    Raises:
        ConfigurationError: It is malformed; the message names a region that may be meant.
    """
    region = text("region", region)
    if not re.fullmatch(r"[a-z]{2}(-[a-z0-9]{1,20}){1,3}", region):
        meant = meant_region(region)
        hint = f"; did you mean {meant}?" if meant else ""
        raise ConfigurationError(
            f"region: expected a name such as ap-beijing; got {region!r}{hint}"
        )
    return region


def meant_region(name: str) -> str | None:
    """Return the region that is meant by a name, or None if none is like it."""
    name = re.sub(r"[\W_]+", "-", name[:40].lower()).strip("-")
    places = {region.partition("-")[2]: region for region in REGIONS}
    if name in REGIONS or name in places:
        return places.get(name, name)
    near = get_close_matches(name, [*REGIONS, *places], 1, 0.75)
    return places.get(near[0], near[0]) if near else None


def region_hint(route: str) -> str:
    """Return a question about the region for a host of the service whose name is not known."""
    match = re.match(r"[a-z0-9-]+\.ci\.([a-z0-9-]+)\.myqcloud\.com:\d+\Z", route)
    if match is None:
        return ""
    meant = meant_region(match[1])
    if meant in {None, match[1]}:
        return f". Is the region {match[1]} right?"
    return f". Did you mean the region {meant}?"


def base_url(
    bucket: str, region: str, endpoint: str | None = None, *, allow_http: bool = False
) -> str:
    """Return the base URL of all requests, without a slash at its end.

    ``endpoint`` takes the place of the bucket's URL: http or https, a host and optionally a port.
    With ``allow_http``, it may be http on another machine.
    """
    url = f"https://{host(bucket, region)}"
    return url if endpoint is None else checked_endpoint(endpoint, allow_http=allow_http)


def checked_endpoint(endpoint: str, *, allow_http: bool) -> str:
    """Return the URL of an endpoint, without a slash at its end.

    Raises:
        ConfigurationError: It is more or less than a scheme, a host and a port, or without TLS.
    """
    endpoint = text("endpoint", endpoint)
    if endpoint.isascii():  # some other letters have a small form that is in ASCII
        endpoint = endpoint.lower()
    shape = r"(https?)://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?/?"
    match = re.fullmatch(shape, endpoint)
    fault = url_fault(endpoint, {"http", "https"}) if match else _excess(endpoint)
    if not match or fault is not None:
        raise ConfigurationError(
            f"endpoint: expected http or https, a host and optionally a port, but {fault}"
            f"{_quoted(endpoint)}"
        )
    if match[1] == "http" and not allow_http and not is_this_machine(match[2].strip("[]")):
        raise ConfigurationError(
            f"endpoint: without TLS, anyone between here and {match[2]} could read the token and "
            "the signature; use https, or pass allow_http=True (--allow-http)"
        )
    return endpoint.rstrip("/")


def _excess(url: str) -> str:
    """Say what keeps a URL from being no more than a scheme, a host and a port."""
    scheme, separator, rest = url.partition("://")
    if re.search(r"\s", url):
        return "it contains white space"
    if not separator or scheme not in {"http", "https"}:
        return "it does not begin with http:// or https://"
    if "@" in rest:
        return "it has a user name or a password"
    if re.search(r"[/?#\\]", rest.removesuffix("/")):
        return "it has a path or a query, too: leave out what follows the host and the port"
    if rest.startswith("[") and "%" in rest:
        return "its address has a zone (%…), which means nothing to a server"
    return "its host or its port is malformed"


def _quoted(url: str) -> str:
    """Return how a message goes on to quote a URL: no user, no password, no path, no query."""
    if not re.fullmatch("[!-~]*", url):
        return ""
    scheme = "".join(re.findall(r"\A[a-z]{1,10}://", url))
    *before, name = re.split("@|%40", url.removeprefix(scheme))
    name, *more = re.split(r"[/?#\\%]", name, maxsplit=1)
    return f"; got '{scheme}{'…@' if before else ''}{name[:80]}{'…' if any(more) else ''}'"


def is_this_machine(name: str) -> bool:
    """Return whether a host is this machine, by its address or its name."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:  # https://www.rfc-editor.org/rfc/rfc6761#section-6.3
        return name == "localhost" or name.endswith(".localhost")


def url_fault(url: str, schemes: set[str]) -> str | None:
    """Return what is wrong with a URL that must have one of ``schemes``; None if nothing is."""
    if re.search(r"\s", url):
        return "it contains white space"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as problem:
        return str(problem)
    if parts.scheme not in schemes:
        if parts.scheme:
            return f"its scheme is {parts.scheme[:20]!r}"
        return f"it does not begin with a scheme, such as {max(schemes)}://"
    if not parts.hostname:
        return "it names no host"
    return "its port is 0" if port == 0 else None
