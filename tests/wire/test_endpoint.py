"""Endpoints: what is taken, and what is said about the rest."""

from __future__ import annotations

import pytest

from ci_live_audit.errors import ConfigurationError
from ci_live_audit.wire.endpoint import base_url

BUCKET, REGION = "examplebucket-1250000000", "ap-beijing"


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("HTTPS://Proxy.Example.COM:8443/", "https://proxy.example.com:8443"),
        ("https://[2001:DB8::A]", "https://[2001:db8::a]"),
        ("HTTP://LOCALHOST:8080", "http://localhost:8080"),
    ],
)
def test_capitals_are_taken(endpoint: str, url: str) -> None:
    """Scheme and host are the same in capitals, and sent in small letters."""
    assert base_url(BUCKET, REGION, endpoint) == url


@pytest.mark.parametrize(
    ("endpoint", "fault"),
    [
        *((f"https://a.com/{rest}", "a path or a query") for rest in ("canary", "/", "?a", "a/")),
        *((f"https://a.com{rest}", "a path or a query") for rest in ("?canary", "#canary", "\\a")),
        ("http://[fe80::1%canary]:80", "has a zone"),
        ("https://user:canary@a.com", "a user name or a password"),
        *((f"https://a.com{blank}", "white space") for blank in (" ", "\n", "\u3000")),
        *((text, "does not begin with http") for text in ("a.com:443", "ftp://a.com", "", "//a")),
        *((f"https://{host}", "host or its port") for host in ("", "a:b", "[::1", "\u212aa.com")),
        ("https://a.com:99999", "out of range"),
        ("https://a.com:0", "port is 0"),
    ],
)
def test_what_is_too_much_is_named(endpoint: str, fault: str) -> None:
    """The message says what is wrong, without the endpoint."""
    with pytest.raises(ConfigurationError, match=rf"\Aendpoint: expected .*, but .*{fault}") as got:
        base_url(BUCKET, REGION, endpoint)
    assert "canary" not in str(got.value)
