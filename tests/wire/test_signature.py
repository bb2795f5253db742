"""The signature, checked against the vectors that Tencent and its SDKs publish."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping

import pytest

from ci_live_audit.credentials.values import Credentials
from ci_live_audit.models import ReadOnly
from ci_live_audit.wire import requests, signature
from ci_live_audit.wire.requests import Request

HOST = "examplebucket-1250000000.ci.ap-guangzhou.myqcloud.com"
JOB = "av0123456789abcdef0123456789abcdef"
EXAMPLE = Credentials("AKIDEXAMPLE", "secretexample")
UPLOAD = Request(
    operation="submit",
    method="POST",
    path="/video/auditing",
    headers=ReadOnly({"content-type": "application/xml", "content-length": "10"}),
    body=b"<Request/>",
)


def fields(authorization: str) -> dict[str, str]:
    """Return the parts of an authorization; none of them is percent-encoded."""
    return dict(part.split("=", 1) for part in authorization.split("&"))


# https://www.tencentcloud.com/document/product/436/7778, which has the sign keys but no secrets.
@pytest.mark.parametrize(
    ("method", "params", "headers", "key_time", "sign_key", "digest", "expected"),
    [
        pytest.param(
            "PUT",
            {},
            {
                "Date": "Thu, 16 May 2019 06:45:51 GMT",
                "Host": "examplebucket-1250000000.cos.ap-beijing.myqcloud.com",
                "Content-Type": "text/plain",
                "Content-Length": "13",
                "Content-MD5": "mQ/fVh815F3k6TAUm8m0eg==",
                "x-cos-acl": "private",
                "x-cos-grant-read": 'uin="100000000011"',
            },
            "1557989151;1557996351",
            "eb2519b498b02ac213cb1f3d1a3d27a3b3c9bc5f",
            "8b2751e77f43a0995d6e9eb9477f4b685cca4172",
            "3b8851a11a569213c17ba8fa7dcf2abec6935172",
            id="A",
        ),
        pytest.param(
            "GET",
            {
                "response-content-type": "application/octet-stream",
                "response-cache-control": "max-age=600",
            },
            {
                "Date": "Thu, 16 May 2019 06:55:53 GMT",
                "Host": "examplebucket-1250000000.cos.ap-beijing.myqcloud.com",
            },
            "1557989753;1557996953",
            "937914bf490e9e8c189836aad2052e4feeb35eaf",
            "54ecfe22f59d3514fdc764b87a32d8133ea611e6",
            "01681b8c9d798a678e43b685a9f1bba0f6c0e012",
            id="B",
        ),
    ],
)
def test_string_to_sign_of_the_document(
    method: str,
    params: Mapping[str, str],
    headers: Mapping[str, str],
    key_time: str,
    sign_key: str,
    digest: str,
    expected: str,
) -> None:
    """The two examples of the document give its strings to sign and its signatures."""
    text = signature.string_to_sign(method, "/exampleobject(腾讯云)", params, headers, key_time)
    assert text == f"sha1\n{key_time}\n{digest}\n"
    assert hmac.new(sign_key.encode(), text.encode(), hashlib.sha1).hexdigest() == expected


# From util_test in https://github.com/tencentyun/cos-cpp-sdk-v5.
@pytest.mark.parametrize(
    ("params", "headers", "expected"),
    [
        (
            {"second_param": "second_value", "first_param": "first_value"},
            {"x-cos-meta-xx": "meta_test", "host": "hostname_test"},
            "7686473b75487163d6e204d3c68e5c3b74e06164",
        ),
        (
            {},
            {"x-cos-meta-xx": "meta_test", "host": "hostname_test"},
            "8e196637993353bdff2466e0d34034130c9a2aca",
        ),
        ({}, {}, "122c75ad3f7c230b8cc88f4f38410b9d3d347997"),
    ],
    ids=["D1", "D2", "D3"],
)
def test_authorization_of_the_cpp_sdk(
    params: Mapping[str, str], headers: Mapping[str, str], expected: str
) -> None:
    """The examples of the C++ SDK give its whole header, in the documented order."""
    credentials = Credentials("access_key_test", "secret_key_test")
    key_time = "1502493430;1502573430"
    assert signature.authorization("GET", "xxxx", params, headers, credentials, key_time) == (
        "q-sign-algorithm=sha1&q-ak=access_key_test"
        f"&q-sign-time={key_time}&q-key-time={key_time}"
        f"&q-header-list={';'.join(sorted(headers))}&q-url-param-list={';'.join(sorted(params))}"
        f"&q-signature={expected}"
    )


# Made with CosS3Auth of cos-python-sdk-v5 1.9.41.
@pytest.mark.parametrize(
    ("request_", "extra", "expected"),
    [
        pytest.param(
            requests.query(JOB), {}, "6ba3d1ef7dabd1c0a79bbd9db8739e94deefa817", id="query"
        ),
        pytest.param(
            requests.cancel(JOB), {}, "b02e40a5b94c55cfd9054fa7d65f202943fcc782", id="cancel"
        ),
        pytest.param(
            UPLOAD,
            {"x-ci-security-token": "tok/en+1=="},
            "ebc18cfce9f9f98cf938e537ce7bca26b0ced35b",
            id="submit",
        ),
    ],
)
def test_authorization_of_the_python_sdk(
    request_: Request, extra: Mapping[str, str], expected: str
) -> None:
    """The three calls of this library have the signatures of the Python SDK."""
    headers = {"host": HOST, **request_.headers, **extra}
    authorization = signature.authorization(
        request_.method, request_.path, {}, headers, EXAMPLE, "1700000000;1700010060"
    )
    assert fields(authorization)["q-signature"] == expected


@pytest.mark.parametrize(
    ("request_", "token", "signed"),
    [
        (requests.query(JOB), None, "host"),
        (requests.query(JOB), "t", "host;x-ci-security-token"),
        (requests.cancel(JOB), None, "content-length;host"),
        (requests.cancel(JOB), "t", "content-length;host;x-ci-security-token"),
        (UPLOAD, None, "content-length;content-type;host"),
        (UPLOAD, "t", "content-length;content-type;host;x-ci-security-token"),
    ],
)
def test_all_headers_that_are_sent_are_signed(
    request_: Request, token: str | None, signed: str
) -> None:
    """All headers but the authorization itself are signed, and no others are sent."""
    credentials = Credentials("id", "key", token)
    headers = signature.sign(request_, HOST, credentials, 1700000000.0)
    assert fields(headers["authorization"])["q-header-list"] == signed
    assert ";".join(sorted(headers.keys() - {"authorization"})) == signed
    assert headers["host"] == HOST
    assert headers.get("x-ci-security-token") == token
    assert request_.headers.items() <= headers.items()


@pytest.mark.parametrize("now", [1700000000, 1700000000.0, 1700000000.999])
def test_a_signature_is_valid_from_a_minute_ago_for_ten_minutes(now: float) -> None:
    """The window is from 60 s before to 600 s after the given time, in whole seconds."""
    authorization = signature.sign(requests.query(JOB), HOST, EXAMPLE, now)["authorization"]
    assert fields(authorization)["q-sign-time"] == "1699999940;1700000600"
    assert fields(authorization)["q-key-time"] == "1699999940;1700000600"


def test_sign_uses_authorization() -> None:
    """The signature of `sign` is that of `authorization` for the same headers, time and key."""
    credentials = Credentials("id", "key", "tok/en+1==")
    headers = signature.sign(UPLOAD, HOST, credentials, 1700000000)
    authorization = headers.pop("authorization")
    key_time = "1699999940;1700000600"
    assert authorization == signature.authorization(
        "POST", "/video/auditing", {}, headers, credentials, key_time
    )


def test_names_and_values_are_encoded() -> None:
    """All but `A-Za-z0-9-_.~` is percent-encoded, and names are then lower-cased."""
    params = {"B b": "!'()*/ +", "Á": "直播", "a-_.~": "A-_.~"}
    text = signature.string_to_sign("GET", "/直 播", params, {}, "1;2")
    lines = (
        "get",
        "/直 播",
        "%c3%81=%E7%9B%B4%E6%92%AD&a-_.~=A-_.~&b%20b=%21%27%28%29%2A%2F%20%2B",
        "",
        "",
    )
    digest = hashlib.sha1("\n".join(lines).encode()).hexdigest()
    assert text == f"sha1\n1;2\n{digest}\n"


def test_secrets_are_masked_in_the_headers() -> None:
    """The repr of headers, authorization and sign key shows neither key nor token."""
    headers = signature.sign(UPLOAD, HOST, Credentials("canary-1", "canary-2", "canary-3"), 0)
    shown = repr(headers)
    assert "canary" not in shown
    assert "q-sign" not in shown
    assert shown.count("'***'") == 2
    assert repr(headers["authorization"]) == repr(signature.sign_key(EXAMPLE, "1;2")) == "'***'"


def test_a_signature_depends_only_on_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signing reads no clock."""
    before = signature.sign(UPLOAD, HOST, EXAMPLE, 1700000000)
    monkeypatch.setattr(time, "time", lambda: pytest.fail("the clock was read"))
    assert signature.sign(UPLOAD, HOST, EXAMPLE, 1700000000) == before


@pytest.mark.parametrize(
    "other",
    [
        signature.sign(requests.cancel(JOB), HOST, EXAMPLE, 1700000000),
        signature.sign(requests.query(JOB + "0"), HOST, EXAMPLE, 1700000000),
        signature.sign(requests.query(JOB), "h" + HOST, EXAMPLE, 1700000000),
        signature.sign(requests.query(JOB), HOST, Credentials("AKID", "other"), 1700000000),
        signature.sign(requests.query(JOB), HOST, Credentials("AKID", "k", "t"), 1700000000),
        signature.sign(requests.query(JOB), HOST, EXAMPLE, 1700000001),
    ],
    ids=["method", "path", "host", "key", "token", "time"],
)
def test_every_part_changes_the_signature(other: Mapping[str, str]) -> None:
    """Changing the method, path, host, key, token or time changes the signature."""
    one = signature.sign(requests.query(JOB), HOST, EXAMPLE, 1700000000)
    assert (
        fields(one["authorization"])["q-signature"] != fields(other["authorization"])["q-signature"]
    )
