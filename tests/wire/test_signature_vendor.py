"""The signature, compared with the one that the vendor's SDK makes of the same request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proofs import times
from qcloud_cos import CosConfig, cos_auth
from requests import PreparedRequest

from ci_live_audit.credentials.values import Credentials
from ci_live_audit.wire import requests, signature
from ci_live_audit.wire.requests import Request

NOW = 1_700_000_060
HOST = "examplebucket-1250000000.ci.ap-guangzhou.myqcloud.com"

# The SDK signs these headers, and all that begin with x-ci- or x-cos-.
SIGNED = ("Cache-Control", "Content-MD5", "content-type", "Expect", "If-Match", "Origin", "RANGE")

visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40)
keys = visible.map("k{}k".format)  # quotes around a key are a mistake
credentials = st.builds(Credentials, keys, keys, st.none() | keys)
texts = st.text(max_size=30)  # any character but lone surrogates
words = st.text(st.characters(exclude_categories=["Cc", "Cs", "Z"]), min_size=1, max_size=10)
values = st.lists(words | st.sampled_from(["a/b+c=", "!'()*", "~-_.", "%41", "é ü", "直播"])).map(
    " ".join
)
suffixes = st.from_regex(r"[A-Za-z0-9_.!-]{1,12}", fullmatch=True)
names = st.sampled_from(SIGNED) | suffixes.map("x-ci-{}".format) | suffixes.map("X-Cos-{}".format)
job_ids = st.from_regex(r"[A-Za-z0-9_-]{1,128}", fullmatch=True)


def fields(name: st.SearchStrategy[str], value: st.SearchStrategy[str]) -> Any:
    """Draw mappings without names that differ only in case: the SDK would drop one of them."""
    pairs = st.lists(st.tuples(name, value), max_size=6, unique_by=lambda pair: pair[0].lower())
    return pairs.map(dict)


@pytest.fixture(scope="module", autouse=True)
def frozen_clock() -> Iterator[None]:
    """Stop the clock that the SDK reads; nothing else of it is replaced."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cos_auth, "time", SimpleNamespace(time=lambda: NOW + 0.5))
        yield


def vendor(
    request: Request, params: Mapping[str, str], signer: Credentials, expire: int
) -> Mapping[str, str]:
    """Return the headers of a request as the SDK signs them."""
    prepared = PreparedRequest()
    prepared.prepare_method(request.method)
    prepared.prepare_url(f"https://{HOST}/", None)
    prepared.prepare_headers(dict(request.headers))
    config = CosConfig(
        Region="ap-guangzhou", SecretId=signer.secret_id, SecretKey=signer.secret_key
    )
    auth = cos_auth.CosS3Auth(config, request.path, dict(params), expire)
    signed: Any = auth(prepared)
    return {name.lower(): value for name, value in signed.headers.items()}


@settings(max_examples=times(1000))
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "get", "Post"]),
    path=(texts | job_ids.map("video/auditing/{}".format)).map("/{}".format),
    params=fields(texts, texts),
    headers=fields(names, values),
    signer=credentials,
)
def test_any_request_is_signed_as_the_sdk_signs_it(
    method: str,
    path: str,
    params: dict[str, str],
    headers: dict[str, str],
    signer: Credentials,
) -> None:
    """Any method, path, parameters and headers give the same authorization as the SDK."""
    request = Request(operation="any", method=method, path=path, headers=headers)
    ours = signature.authorization(
        method, path, params, {**headers, "host": HOST}, signer, f"{NOW - 60};{NOW + 10_000}"
    )
    assert ours == vendor(request, params, signer, 10_000)["authorization"]


@settings(max_examples=times(500))
@given(
    request=job_ids.map(requests.query)
    | job_ids.map(requests.cancel)
    | texts.map(lambda text: requests.submit("rtmp://a/" + text.encode().hex(), biz_type="b")),
    signer=credentials,
)
def test_our_calls_are_sent_as_the_sdk_signs_them(request: Request, signer: Credentials) -> None:
    """Query, cancel and submit have the headers that the SDK would send for them."""
    token = {} if signer.token is None else {"x-ci-security-token": signer.token}
    plain = attrs.evolve(request, headers={**request.headers, **token})
    ours = signature.sign(request, HOST, signer, NOW)
    assert ours == {"host": HOST, **vendor(plain, {}, signer, signature.AFTER)}
