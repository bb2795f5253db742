"""Signatures, in the header and in the URL, as the service verifies them."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from urllib.parse import urlencode
from xml.etree import ElementTree as ET

import attrs
import httpx
import pytest
from command_line import Clock
from signed import (
    CANCEL,
    CREDENTIALS,
    HOST,
    NOW,
    QUERY,
    SUBMIT,
    answer,
    authorized,
    code,
    presigned,
    send,
    signed,
    statuses,
    still,
    stream,
    with_header,
)

from ci_live_audit import Credentials
from ci_live_audit.testing import Emulator
from ci_live_audit.wire import signature


@pytest.fixture
def emulator() -> Emulator:
    return still(Clock())


# In the header


FIELDS = {
    "q-sign-algorithm": "sha1",
    "q-ak": "AKIDEXAMPLE",
    "q-sign-time": f"{NOW};{NOW + 60}",
    "q-key-time": f"{NOW};{NOW + 60}",
    "q-header-list": "host",
    "q-url-param-list": "",
    "q-signature": "0" * 40,
}
MALFORMED: dict[str, Mapping[str, str]] = {
    **{f"no {name}": {k: v for k, v in FIELDS.items() if k != name} for name in FIELDS},
    "another algorithm": FIELDS | {"q-sign-algorithm": "md5"},
    "two times": FIELDS | {"q-sign-time": f"{NOW};{NOW + 61}"},
    "one second": FIELDS | {"q-key-time": f"{NOW}"},
    "three seconds": FIELDS | {"q-key-time": "1;2;3"},
    "no seconds": FIELDS | {"q-key-time": "then;now"},
    "headers out of order": FIELDS | {"q-header-list": "host;content-type"},
    "parameters out of order": FIELDS | {"q-url-param-list": "b;a"},
    "nothing": {},
    "another scheme": {"Bearer token": ""},
}


@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_authorization_is_refused(
    emulator: Emulator, fields: Mapping[str, str]
) -> None:
    """A missing, repeated or disordered field of the signature is refused."""
    header = "&".join(f"{name}={value}" for name, value in fields.items())
    response = await send(emulator, authorized(header.encode()))
    assert (response.status_code, code(response)) == (401, "InvalidAuthorization")


@pytest.mark.parametrize("byte", [b"\xc3\xa9", b"\xff"], ids=["UTF-8", "no UTF-8"])
async def test_bytes_outside_ascii_are_refused(emulator: Emulator, byte: bytes) -> None:
    """A signature with bytes outside ASCII is refused without a crash."""
    header = "&".join(f"{name}={value}" for name, value in FIELDS.items()).encode()
    response = await send(emulator, authorized(header + byte))
    assert response.status_code in {401, 403}


PARAMS = {"a": "1", "b": "x y/+é"}
HEADERS = {"x-ci-note": "a b&c=d", "content-type": "text/plain"}


async def test_signed_headers_and_parameters_are_accepted(emulator: Emulator) -> None:
    """Any header and parameter may be signed, and may arrive in any order."""
    request = signed(params=PARAMS, headers=HEADERS)
    reordered = httpx.Request(
        "GET",
        f"https://{HOST}{QUERY}?{urlencode(dict(reversed(PARAMS.items())))}&unsigned=1",
        headers={**dict(reversed([*request.headers.items()])), "x-unsigned": "1"},
    )
    assert await statuses(emulator, request, reordered) == [200, 200]


TAMPERED: dict[str, Callable[[httpx.Request], httpx.Request]] = {
    "key": lambda _: signed(credentials=Credentials("AKIDEXAMPLE", "wrong")),
    "method": lambda r: httpx.Request("POST", r.url, headers=r.headers),
    "path": lambda r: httpx.Request("GET", f"{r.url.copy_with(path=CANCEL)}", headers=r.headers),
    "header": lambda r: httpx.Request("GET", r.url, headers=[*r.headers.items(), ("host", "x")]),
    "signed header": lambda r: httpx.Request(
        "GET", r.url, headers={**r.headers, "x-ci-note": "other"}
    ),
    "signed header gone": lambda r: httpx.Request(
        "GET", r.url, headers={k: v for k, v in r.headers.items() if k != "x-ci-note"}
    ),
    "signed parameter": lambda r: httpx.Request(
        "GET", r.url.copy_set_param("a", "2"), headers=r.headers
    ),
    "signed parameter gone": lambda r: httpx.Request(
        "GET", r.url.copy_remove_param("a"), headers=r.headers
    ),
}


@pytest.mark.parametrize("tamper", TAMPERED.values(), ids=TAMPERED)
async def test_a_request_changed_after_signing_is_refused(
    emulator: Emulator, tamper: Callable[[httpx.Request], httpx.Request]
) -> None:
    """A change of key, method, path, or a signed header or parameter is refused."""
    response = await send(emulator, tamper(signed(params=PARAMS, headers=HEADERS)))
    assert (response.status_code, code(response)) == (403, "SignatureDoesNotMatch")


@pytest.mark.parametrize("position", range(40))
async def test_every_character_of_the_signature_counts(emulator: Emulator, position: int) -> None:
    """A signature with one changed digit is refused."""
    header = signed().headers["authorization"]
    at = len(header) - 40 + position
    digit = string.hexdigits[(string.hexdigits.index(header[at]) + 1) % 16]
    request = signed()
    request.headers["authorization"] = header[:at] + digit + header[at + 1 :]
    assert code(await send(emulator, request)) == "SignatureDoesNotMatch"


@pytest.mark.parametrize("host", [HOST, "127.0.0.1:8080"])
async def test_a_mismatch_shows_the_signed_strings(emulator: Emulator, host: str) -> None:
    """As with the service, the document has the strings to compare one's own with."""
    request = signed(host=host, credentials=Credentials("AKIDEXAMPLE", "wrong"))
    error = ET.fromstring((await send(emulator, request)).content)
    key_time = f"{NOW - 60};{NOW + 60}"
    expected = signature.string_to_sign("GET", QUERY, {}, {"host": host}, key_time)
    assert error.findtext("FormatString") == (f"get\n{QUERY}\n\nhost={host.replace(':', '%3A')}\n")
    assert error.findtext("StringToSign") == expected


@pytest.mark.parametrize(
    ("in_signature", "arrived"),
    [
        ("127.0.0.1", "127.0.0.1:8080"),
        ("[::1]", "[::1]:8080"),
        (HOST, HOST.upper()),
        (HOST, f"{HOST.upper()}:443"),
        (HOST.upper(), f"{HOST.upper()}:443"),
        (f"{HOST}:443", f"{HOST.upper()}:443"),
    ],
)
async def test_the_host_may_be_signed_otherwise_than_sent(
    emulator: Emulator, in_signature: str, arrived: str
) -> None:
    """The vendor's SDKs sign it without its port; URLs have it in small letters."""
    request = with_header(signed(host=in_signature), "host", arrived)
    assert await statuses(emulator, request) == [200]


@pytest.mark.parametrize("query", ["a=x+y", "a=x%2By", "a=x%2by", "%61=x+y&b"])
async def test_a_plus_in_a_query_may_mean_itself(emulator: Emulator, query: str) -> None:
    """RFC 3986 leaves a plus as it is."""
    request = signed(params={"a": "x+y"})
    request.url = request.url.copy_with(query=query.encode())
    assert await statuses(emulator, request) == [200]


@pytest.mark.parametrize("query", ["a=x+y", "a=x%20y"])
async def test_a_plus_in_a_query_may_mean_a_blank(emulator: Emulator, query: str) -> None:
    """Forms, and SDKs that encode as they do, write a blank as a plus."""
    request = signed(params={"a": "x y"})
    request.url = request.url.copy_with(query=query.encode())
    assert await statuses(emulator, request) == [200]


@pytest.mark.parametrize("query", [b"a=\xff", "a=é".encode(), b"a=%ff", b"a=%", b"&;=&"])
async def test_an_odd_query_is_no_crash(emulator: Emulator, query: bytes) -> None:
    """Parameters that are not signed do not matter, whatever they are."""
    request = signed()
    scope = {
        "type": "http",
        "method": "GET",
        "path": QUERY,
        "query_string": query,
        "headers": request.headers.raw,
    }
    assert (await answer(emulator, scope))[0]["status"] == 200


@pytest.mark.parametrize("at", [NOW - 60, NOW + 60])
async def test_a_signature_is_valid_to_the_second(emulator: Emulator, at: int) -> None:
    """The first and the last second of the signed period are valid."""
    assert await statuses(emulator, signed(at=at)) == [200]


@pytest.mark.parametrize("header", ["x-ci-security-token", "x-cos-security-token"])
async def test_a_token_is_accepted_under_both_names(emulator: Emulator, header: str) -> None:
    """A token is accepted in both headers of the vendor's SDKs, signed or not."""
    emulator.credentials = attrs.evolve(CREDENTIALS, token="tok/en+1==")
    unsigned = signed()
    unsigned.headers[header] = "tok/en+1=="
    request = signed(headers={header: "tok/en+1=="})
    assert await statuses(emulator, request, unsigned) == [200, 200]


@pytest.mark.parametrize("token", [None, "other"])
async def test_a_wrong_token_is_refused(emulator: Emulator, token: str | None) -> None:
    """Temporary credentials with a missing or wrong token are refused."""
    emulator.credentials = attrs.evolve(CREDENTIALS, token="tok/en+1==")
    request = signed(credentials=attrs.evolve(CREDENTIALS, token=token))
    response = await send(emulator, request)
    assert (response.status_code, code(response)) == (403, "AccessDenied")


# In the query


@pytest.mark.parametrize("form", ["fields", "raw", "sign"])
async def test_a_signature_in_the_query_is_accepted(emulator: Emulator, form: str) -> None:
    """Every operation can be signed in the URL, with parameters and headers or without."""
    assert await statuses(
        emulator,
        presigned(form=form),
        presigned(form=form, params=PARAMS, headers=HEADERS),
        presigned("POST", SUBMIT, body=stream(), form=form),
        presigned("POST", CANCEL, form=form),
    ) == [200, 200, 200, 200]


@pytest.mark.parametrize("name", ["x-cos-security-token", "x-ci-security-token"])
@pytest.mark.parametrize("quoted", [True, False])
async def test_a_token_may_be_in_the_query(emulator: Emulator, name: str, quoted: bool) -> None:
    """The vendor's SDKs append it to the URL, and not all of them encode it."""
    emulator.credentials = attrs.evolve(CREDENTIALS, token="tok/en+1==")
    request = presigned()
    token = urlencode({name: "tok/en+1=="}) if quoted else f"{name}=tok/en+1=="
    missing = [request.url.query, b"&x-cos-security-token=other"]
    request.url = request.url.copy_with(query=request.url.query + b"&" + token.encode())
    wrong = presigned()
    wrong.url = wrong.url.copy_with(query=b"".join(missing))
    assert await statuses(emulator, request, presigned(), wrong) == [200, 403, 403]


PRESIGNED: dict[str, tuple[httpx.Request, int, str]] = {
    "expired": (presigned(at=NOW - 61), 401, "SignatureExpired"),
    "not valid yet": (presigned(at=NOW + 61), 403, "RequestTimeTooSkewed"),
    "unknown id": (
        presigned(credentials=Credentials("AKIDOTHER", "secretexample")),
        401,
        "SecretidNotExist",
    ),
    "another key": (
        presigned(credentials=Credentials("AKIDEXAMPLE", "wrong")),
        403,
        "SignatureDoesNotMatch",
    ),
    "another key in one parameter": (
        presigned(form="sign", credentials=Credentials("AKIDEXAMPLE", "wrong")),
        403,
        "SignatureDoesNotMatch",
    ),
    "one field": (
        httpx.Request("GET", f"https://{HOST}{QUERY}?q-ak=A"),
        401,
        "InvalidAuthorization",
    ),
    "empty": (httpx.Request("GET", f"https://{HOST}{QUERY}?sign="), 401, "InvalidAuthorization"),
}


@pytest.mark.parametrize(("request_", "status", "word"), PRESIGNED.values(), ids=PRESIGNED)
async def test_a_signature_in_the_query_is_refused_as_one_in_a_header(
    emulator: Emulator, request_: httpx.Request, status: int, word: str
) -> None:
    """What is wrong with it has the same status and code."""
    response = await send(emulator, request_)
    assert (response.status_code, code(response)) == (status, word)


async def test_a_header_has_precedence_over_the_query(emulator: Emulator) -> None:
    """A request signed twice is judged by its header."""
    expired = presigned(at=NOW - 61)
    valid = with_header(expired, "authorization", signed().headers["authorization"])
    invalid = with_header(presigned(), "authorization", "x")
    assert await statuses(emulator, valid, invalid) == [200, 401]
