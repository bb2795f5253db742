"""Endpoints: what is taken, and what is said about the rest."""

from __future__ import annotations

import pytest

from ci_live_audit.errors import ConfigurationError
from ci_live_audit.wire.endpoint import base_url, checked_endpoint

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


@pytest.mark.parametrize(
    ("endpoint", "quoted"),
    [
        ("ftp://a.com", "'ftp://a.com'"),
        ("a.com:80", "'a.com:80'"),
        ("https://a.com/path/canary?canary#canary", "'https://a.com…'"),
        ("https://me:canary@a.com:80", "'https://…@a.com:80'"),
        ("https://me:canary/canary@a.com", "'https://…@a.com'"),
        ("https://canary@canary@a.com", "'https://…@a.com'"),
        ("me:canary@a.com", "'…@a.com'"),
        ("https://me:canary%40a.com", "'https://…@a.com'"),
        ("", "''"),
        ("x" * 100, f"'{'x' * 80}'"),
    ],
)
def test_the_message_quotes_what_was_given(endpoint: str, quoted: str) -> None:
    """It quotes the host alone: the rest may be secret, and what is odd is not quoted at all."""
    with pytest.raises(ConfigurationError) as caught:
        checked_endpoint(endpoint, allow_http=False)
    assert str(caught.value).endswith(f"; got {quoted}")
    assert "canary" not in str(caught.value)
    for odd in ("\n", "\x1b", " ", "\uff20"):
        with pytest.raises(ConfigurationError) as caught:
            checked_endpoint(f"{endpoint}{odd}canary", allow_http=False)
        assert "; got" not in str(caught.value)


@pytest.mark.parametrize(
    ("region", "meant"),
    [
        *((name, "ap-beijing") for name in ("beijing", "AP-Beijing", "ap_beijing", "Bejing")),
        ("Silicon Valley", "na-siliconvalley"),
        ("FRANKFURT", "eu-frankfurt"),
        *((name, None) for name in ("", "x", "nowhere at all", "-")),
    ],
)
def test_a_region_that_may_be_meant_is_named(region: str, meant: str | None) -> None:
    """By its place, in capitals, with a slip; not by what is like none."""
    with pytest.raises(ConfigurationError, match=r"\Aregion: expected a name such as") as caught:
        base_url(BUCKET, region)
    hint = f"; did you mean {meant}?" if meant else ""
    assert str(caught.value).endswith(f"got {region!r}{hint}")
