"""S1, S2, S3: no argument changes where a request goes or what else it contains.

Hostile ids, buckets, regions, endpoints, secrets and texts of a submission are refused by name
before anything is sent, or arrive as exactly the text that they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterator
from enum import Enum
from typing import Any, Self
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from proofs import times
from servers import Recorder, Served, answering, serving

from ci_live_audit import (
    ConfigurationError,
    Credentials,
    InvalidInput,
    LiveAuditClient,
    LiveAuditError,
    RetryPolicy,
    TransportError,
    UserInfo,
)
from ci_live_audit.wire import endpoint
from ci_live_audit.wire import requests as ours

pytestmark = pytest.mark.waits  # on sockets

BUCKET, REGION = "examplebucket-1250000000", "ap-beijing"
CREDENTIALS = Credentials("AKIDEXAMPLE", "secretexample")
JOB = "av0123456789abcdef"
RESPONSE = b"<Response><JobsDetail><JobId>%b</JobId><State>Success</State></JobsDetail></Response>"


class Lie(str):
    """A text whose methods pretend that it is another one."""

    __slots__ = ("lie",)

    lie: str

    def __new__(cls, truth: str, lie: str) -> Self:
        text = super().__new__(cls, truth)
        text.lie = lie
        return text

    def __str__(self) -> str:
        return self.lie

    def __format__(self, spec: str) -> str:
        return self.lie

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash(self.lie)

    def encode(self, *_: Any) -> bytes:
        return self.lie.encode()

    def rstrip(self, *_: Any) -> str:
        return self.lie


class Words(str, Enum):  # noqa: UP042 - the older kind prints its name
    """Settings as an enum of texts."""

    BUCKET = BUCKET
    REGION = REGION
    JOB = JOB
    TAG = "Note"
    UP = "../cos"


class Numbers(int, Enum):
    """Numbers as an enum."""

    THREE = 3


class Loud(float):
    """A number that prints itself as an element."""

    def __str__(self) -> str:
        return "<Loud/>"

    __repr__ = __str__


def for_tests(url: str, **options: Any) -> LiveAuditClient:
    options = {"credentials": CREDENTIALS, "retry": RetryPolicy(attempts=1), **options}
    return LiveAuditClient(BUCKET, REGION, endpoint=url, rate=1000, **options)


@contextlib.contextmanager
def runner_and_server(
    handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> Iterator[tuple[asyncio.Runner, Served]]:
    """Run one loop and one server for all examples of a property."""
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        served = runner.run(stack.enter_async_context(serving(handler)))
        try:
            yield runner, served
        finally:
            runner.run(stack.aclose())


# S1: the job id


JOB_IDS: list[Any] = [
    *("", " ", "\t", "\n", "a b", " a", "a ", "a\n", "a\r\n", "\na", "a\0", "a\x7f", "a\x1b[2J"),
    *("/", "//evil.com/", "..", "../", "../cos", "a/../b", "./a", "a/b", "\\", "..\\cos", "a;b"),
    *("%2e%2e", "%2E%2E%2Fcos", "%00", "%0d%0aX-Evil:1", "a%", "%", "?", "a?x=1", "#", "a#f", "&"),
    *("a\r\nX-Evil: 1", "a HTTP/1.1\r\nHost: evil.com\r\n\r\nGET /", "a@evil.com", "a:80", "*"),
    *("\u212a", "\uff41", "\u0661", "\uff0e\uff0e", "\u2215a", "\u2028", "\u200b", "\ufeffa"),
    *("\u00e9", "\u00df", "\u0130", "a\u0301", "\u4e2d", "\U0001d41a", "\U0001f600", "\ud800"),
    *("\udcff", "a" * 129, "a" * 1_000_000, "a,b", "a.b", "~", "a+b", "'", '"', "<a>", "{a}"),
    *(None, True, 0, 1.5, b"a", bytearray(b"a"), memoryview(b"a"), ["a"], ("a",), {"a"}, {"a": 1}),
    *(object(), str, Words.UP, Lie("../cos", "a"), Lie("a\r\n", "a"), Lie("", "a")),
]


@pytest.mark.parametrize("verb", ["query", "cancel", "wait"])
async def test_s01_a_hostile_job_id_sends_nothing(verb: str) -> None:
    """Every hostile id is refused by name, and no connection is opened."""
    async with serving(answering(RESPONSE % b"a")) as served, for_tests(served.url) as client:
        for job_id in JOB_IDS:
            with pytest.raises(ConfigurationError, match=r"\bjob_ids?\b") as caught:
                await getattr(client, verb)(job_id)
            assert len(str(caught.value)) < 1000
        assert (served.accepted, served.requests) == (0, [])


async def test_s01_a_hostile_job_id_among_many_sends_nothing() -> None:
    """Among other jobs, each hostile id is refused by itself, and nothing is sent for it."""
    async with serving(answering(RESPONSE % b"good")) as served, for_tests(served.url) as client:
        for follow in (client.as_completed, client.watch):
            served.requests.clear()
            refused = 0
            for job_id in JOB_IDS:
                run: Any = None
                with contextlib.suppress(ConfigurationError):
                    async with follow([job_id, "good"]) as run:
                        errors = [getattr(one, "error", None) async for one in run]
                        assert [type(one) for one in errors if one] == [InvalidInput]
                        refused += 1
                refused += run is None
            assert refused + served.requests.count(b"") == len(JOB_IDS)
            lines = {head.partition(b"\r\n")[0] for head in served.requests}
            assert lines == {b"GET /video/auditing/good HTTP/1.1"}


ids = (
    st.text("azAZ09_-", min_size=1, max_size=129)
    | st.text("aZ0_-\u212a\uff41\u0661%./\\?#@:; \r\n", min_size=1, max_size=20)
    | st.text()
)


@settings(max_examples=times(5000))
@given(ids)
@example("a\n")
@example("\u212a")
def test_s01_an_accepted_job_id_is_the_last_segment_of_the_path(job_id: str) -> None:
    """Every URL parser reads the path as ``/video/auditing/<id>`` and nothing else."""
    for build, folder in ((ours.query, "auditing"), (ours.cancel, "cancel_auditing")):
        try:
            request = build(job_id)
        except ConfigurationError:
            assert not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", job_id)
            continue
        assert request.path == f"/video/{folder}/{job_id}"
        assert httpx.URL(f"https://h{request.path}").raw_path == request.path.encode()
        assert urlsplit(f"https://h{request.path}")[1:] == ("h", request.path, "", "")


async def test_s01_the_request_line_is_the_path_and_no_more() -> None:
    """The server reads the true id, even of a text that pretends to be another."""
    async with serving(answering(RESPONSE % b"x")) as served, for_tests(served.url) as client:
        accepted = ["a", "-", "_" * 128, JOB, Words.JOB, Lie(JOB, "../../evil")]
        for job_id in accepted:
            with contextlib.suppress(LiveAuditError):  # the response is about another job
                await client.query(job_id)
        lines = [head.partition(b"\r\n")[0].decode() for head in served.requests]
    assert lines == [f"GET /video/auditing/{str.__str__(one)} HTTP/1.1" for one in accepted]


# S2: the host


CONFUSIONS = [
    *("a-1250000000.evil.com/", "evil.com/a-1250000000", "a-1250000000@evil.com", "@", "a:b@c"),
    *("a-1250000000\\.evil.com", "%2f", "a%00-1250000000", "a-1250000000\n", "\na-1250000000"),
    *(
        "a-1250000000\r\nHost: evil.com",
        "a\u3002b-1250000000",
        "a-12\u0665\u0660\u0660\u0660\u0660",
    ),
    *("\uff41-1250000000", "a-125000000\uff10", "\u212a-1250000000", "b\u00fccher-1250000000"),
    *("A-1250000000", "a-1250000000/", "a-1250000000?", "a-1250000000#", "a-1250000000:80", "a"),
    *("a-1250000000 ", " a-1250000000", "a b-1250000000", "a\t-1250000000", "a\0-1250000000"),
    *("-a-1250000000", "a--", "-1250000000", "a_b-1250000000", "a.b-1250000000", "a-1250000000."),
    *("a-1250000000;x", "a-1250000000,b", "[::1]-1250000000", "*-1250000000", "a-12500000000000"),
    *("a" * 51 + "-1250000000", "a" * 100_000 + "-1250000000", "xn--a.b", "\ud800-1250000000"),
    *("\U0001f600-1250000000", "\u200ba-1250000000", "a\u0301-1250000000", "${HOME}", "{0}"),
]
NO_TEXTS: list[Any] = [None, 0, 5, True, b"a-1250000000", ["a-1250000000"], object(), str]
BUCKETS: list[Any] = [*CONFUSIONS, *NO_TEXTS, "", Lie("evil.com/", BUCKET)]
REGION_TEXTS = [
    *("ap-beijing.evil.com", "ap-beijing/", "ap-beijing@evil.com", "@evil.com", "ap-beijing\\"),
    *("ap-beijing%2f", "%", "ap-beijing\n", "\nap-beijing", "ap-beijing\r\nHost: evil.com", "ap"),
    *("ap-beijing\u3002evil", "ap-b\uff41", "a\u0440-beijing", "\u212aap-beijing", "ap-b\u00fc"),
    *("AP-BEIJING", "Ap-beijing", "ap-beijing#", "ap-beijing?", "ap-beijing:80", "ap_beijing"),
    *("ap-beijing ", " ap-beijing", "ap beijing", "ap\t-beijing", "ap--beijing", "-beijing", "ap-"),
    *("ap-" + "a" * 21, "a" * 100_000, "ap-a-b-c-d", "a-beijing", "app-beijing", "1p-beijing"),
    *(
        "ap-beijing;",
        "ap-beijing,",
        "[::1]",
        "*",
        "..",
        ".",
        "ap-beijing.",
        "evil.com",
        "ap-\u0661",
    ),
    *("ap-\u200bb", "ap-\U0001f600", "ap-beijing\x7f", "ap-beijing\x1b"),
]
REGIONS: list[Any] = [*REGION_TEXTS, *NO_TEXTS, "", "ap\0-b", "\ud800-b", Lie("@evil.com/", REGION)]
ENDPOINTS: list[Any] = [
    *("", "evil.com", "//evil.com", "ftp://evil.com", "file:///etc/passwd", "https:evil.com"),
    *("https://", "https:///", "https:////evil.com", "https:\\\\evil.com", "https://good@evil.com"),
    *("https://good:pw@evil.com", "https://@evil.com", "https://good\\@evil.com"),
    *(
        "https://a.com/path",
        "https://a.com//",
        "https://a.com/..",
        "https://a.com?x",
        "https://a#f",
    ),
    *("https://a.com/?x", "https://a.com\\", "https://a.com%2fb", "https://%61.com", "https://a b"),
    *(
        "https://a.com\n",
        "\nhttps://a.com",
        "https://a.com\r\nX: y",
        "https://a\t.com",
        " https://a",
    ),
    *(
        "https://a.com:0",
        "https://a.com:99999",
        "https://a.com:65536",
        "https://a.com:",
        "https://a:b",
    ),
    *("https://a.com:-1", "https://a.com:\u0661", "https://a.com:80:80", "https://a.com:1e3"),
    *("https://a\u3002com", "https://\uff41.com", "https://b\u00fccher.de", "https://\u212a.com"),
    *(
        "https://a\u2044b.com",
        "https://\U0001f600",
        "https://\ud800",
        "https://a\0.com",
        "https://*",
    ),
    *(
        "https://[::1%25eth0]",
        "https://[fe80::1%eth0]",
        "https://[::1",
        "https://::1",
        "https://[]",
    ),
    *(
        "https://[::1]evil.com",
        "https://[1:2]",
        "https://[v1.a]",
        "https://a.com,b.com",
        "https://:1",
    ),
    *(
        "http://evil.com",
        "http://10.0.0.1",
        "http://127.0.0.1.evil.com",
        "http://localhost.evil.com",
    ),
    *("http://127.1", "http://2130706433", "http://0x7f.0.0.1", "http://0177.0.0.1", "http://[::]"),
    *("http://0.0.0.0", "http://127.0.0.1.", "http://1270.0.0.1", "http://localhostx", "http://a"),
    *("http://128.0.0.1", "http://[::2]", "http://[fe80::1]", "http://xlocalhost", "http://.."),
    *(
        0,
        True,
        b"https://a.com",
        ["https://a.com"],
        object(),
        Lie("http://evil.com", "https://a.com"),
    ),
]


def made(**arguments: Any) -> LiveAuditClient:
    arguments = {"bucket": BUCKET, "region": REGION, "credentials": CREDENTIALS, **arguments}
    return LiveAuditClient(**arguments)


@pytest.mark.parametrize(
    ("name", "values"), [("bucket", BUCKETS), ("region", REGIONS), ("endpoint", ENDPOINTS)]
)
def test_s02_no_hostile_name_makes_a_client(name: str, values: list[Any]) -> None:
    """Every hostile name is refused when the client is made, and the error names the argument."""
    assert len(values) > 40
    for value in values:
        with pytest.raises(ConfigurationError, match=rf"\A{name}: "):
            made(**{name: value})


def test_s02_no_hostile_region_of_the_environment_makes_a_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The value of ``TENCENTCLOUD_REGION`` is checked as the argument is."""
    for value in REGION_TEXTS:
        monkeypatch.setenv("TENCENTCLOUD_REGION", value)
        with pytest.raises(ConfigurationError, match=r"\Aregion: "):
            made(region=None)


@pytest.mark.parametrize(
    ("arguments", "url"),
    [
        ({"bucket": Words.BUCKET, "region": Words.REGION}, None),
        ({"bucket": Lie(BUCKET, "evil.com/"), "region": Lie(REGION, "@evil.com/")}, None),
        ({"endpoint": Lie("https://a.com", "http://evil.com")}, "https://a.com"),
    ],
)
def test_s02_a_name_is_its_text_not_what_it_prints(
    arguments: dict[str, Any], url: str | None
) -> None:
    """The URL has the true text, even of one that prints as another, such as an enum's."""
    known = {"bucket": BUCKET, "region": REGION, **arguments}
    expected = f"https://{BUCKET}.ci.{REGION}.myqcloud.com"
    assert endpoint.base_url(**known) == (url or expected)


near_names = st.text("aZ09.@/\\%:#?[]_\u3002\uff41\n-", max_size=9).map("{}-1250000000".format)
near_regions = st.text("azZ0.@/%:\n\u3002-", max_size=9).map("ap-{}".format)


@settings(max_examples=times(5000))
@given(
    st.text("az09-", max_size=9).map("a{}-1250000000".format) | near_names,
    st.text("az09-", max_size=9).map("ap-a{}".format) | near_regions,
)
def test_s02_every_accepted_name_gives_a_host_of_tencent(bucket: str, region: str) -> None:
    """The host ends in ``.myqcloud.com``, and all URL parsers agree on it."""
    try:
        url = endpoint.base_url(bucket, region)
    except ConfigurationError:
        return
    host = f"{bucket}.ci.{region}.myqcloud.com"
    assert urlsplit(url)[:] == ("https", host, "", "", "")
    assert httpx.URL(url).raw_host == host.encode()
    assert (urlsplit(url).port, httpx.URL(url).port, httpx.URL(url).userinfo) == (None, None, b"")


near_hosts = st.one_of(
    st.sampled_from(["localhost", "127.0.0.1", "[::1]", "127.0.0.2", "a.localhost", "127.1"]),
    st.text("aZ09.@/\\%:#?[]_\u3002\n-", max_size=9),
    st.ip_addresses().map(lambda it: f"[{it}]" if it.version == 6 else str(it)),
    st.text(max_size=5),
)
near_ports = st.just("") | st.integers(-1, 70_000).map(":{}".format) | st.text(":0@/#", max_size=3)


@settings(max_examples=times(5000))
@given(st.sampled_from(["https://", "http://", "//", "https:"]), near_hosts, near_ports)
@example("https://", "xn--bcher-kva.de", ":00443")
@example("http://", "[::ffff:127.0.0.1]", "")
def test_s02_every_accepted_endpoint_is_read_alike(scheme: str, host: str, port: str) -> None:
    """All URL parsers agree on host and port; without TLS, the host is this machine."""
    try:
        url = endpoint.base_url(BUCKET, REGION, scheme + host + port)
    except ConfigurationError:
        return
    parts = urlsplit(url)
    assert (parts.username, parts.password, parts.path, parts.query, parts.fragment) == (
        *(None, None),
        *("", "", ""),
    )
    with contextlib.suppress(httpx.InvalidURL):  # then nothing is sent: 999.1.1.1
        theirs = httpx.URL(url)
        default = {"http": 80, "https": 443}[parts.scheme]
        assert theirs.raw_host.decode() == parts.hostname
        assert (theirs.port or default) == (parts.port or default)
        assert (theirs.userinfo, theirs.raw_path, theirs.fragment) == (b"", b"/", "")
    if parts.scheme == "http":
        name = parts.hostname or ""
        if name.rpartition(".")[2] != "localhost":
            assert ipaddress.ip_address(name).is_loopback


async def test_s02_without_tls_no_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests without TLS stay on this machine, so no proxy gets them."""
    async with serving(answering(b"proxied")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        for host in ("127.0.0.1", "127.0.0.2", "localhost", "a.localhost"):
            async with for_tests(f"http://{host}:9", timeout=0.5) as client:
                with pytest.raises(TransportError):
                    await client.query(JOB)
        assert proxy.accepted == 0


# S3: headers


CONTROLS = [*map(chr, range(33)), *map(chr, range(0x7F, 0x100))]
OTHERS = [
    "\u0661",
    "\u200b",
    "\u2028",
    "\ud800",
    "\uff41",
    "\U0001f600",
    "\r\nX-Evil: 1\r\n",
    "\n ",
]


@pytest.mark.parametrize("name", ["secret_id", "secret_key", "token"])
def test_s03_no_secret_breaks_its_header(name: str) -> None:
    """White space, control and non-ASCII characters are refused anywhere, and not quoted."""
    for bad in CONTROLS + OTHERS:
        for value in (f"canary{bad}", f"{bad}canary", f"can{bad}ary", Lie(f"can{bad}ary", "good")):
            arguments: dict[str, Any] = {"secret_id": "id", "secret_key": "key", name: value}
            with pytest.raises(ConfigurationError, match=rf"\A{name}: expected ") as caught:
                Credentials(**arguments)
            assert "can" not in str(caught.value).replace("characters", "")
            assert "ary" not in str(caught.value)


@pytest.mark.parametrize("bad", ["\r\nX-Evil: 1", "\n", "\0", "\x7f", " ", "\u00e9", "\u0661"])
def test_s03_no_endpoint_breaks_the_host_header(bad: str) -> None:
    """The endpoint becomes the ``Host`` header, so it contains nothing that could end one."""
    for url in (f"https://canary{bad}", f"https://can{bad}ary", f"https://canary{bad}:80"):
        with pytest.raises(ConfigurationError, match=r"\Aendpoint: ") as caught:
            made(endpoint=url)
        assert "can" not in str(caught.value)


def test_s03_a_secret_is_its_text_not_what_it_prints() -> None:
    """The secret is the true text, even of one that pretends to be another."""
    lie = Lie("good", "evil\r\nX-Evil: 1")
    found = Credentials(lie, lie, lie)
    assert {str(one) for one in (found.secret_id, found.secret_key, found.token)} == {"good"}
    assert Credentials(Words.JOB, Words.JOB).secret_id == JOB


def test_s03_an_accepted_token_is_one_header_byte_for_byte() -> None:
    """The server reads every accepted token in one header line, and no line more."""
    current = [""]

    async def provide() -> Credentials:
        return Credentials("id", "key", current[0])

    with runner_and_server(answering(RESPONSE % b"a")) as (runner, served):
        client = for_tests(served.url, credentials=provide)
        names: set[tuple[bytes, ...]] = set()

        @settings(max_examples=times(1000))
        @given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1) | st.text())
        @example("a:b,c;d='\"%0d%0a\\r\\n")
        def holds(token: str) -> None:
            current[0] = token
            served.requests.clear()
            try:
                runner.run(client.query("a"))
            except ConfigurationError:
                assert served.requests == []
                return
            lines = served.requests[0].removesuffix(b"\r\n\r\n").split(b"\r\n")[1:]
            assert b"x-ci-security-token: " + token.encode("ascii") in lines
            names.add(tuple(sorted(line.partition(b":")[0] for line in lines)))

        holds()
        runner.run(client.aclose())
    assert len(names) == 1


# The texts of a submission


TEXTS = [
    *("</DataId><Evil/>", "<Evil>x</Evil>", "</Request>", "<![CDATA[<Evil/>]]>", "]]>", "<!-- -->"),
    *(
        "-->",
        "<!--",
        "&",
        "&amp;",
        "&lt;Evil/&gt;",
        "&#60;Evil/&#62;",
        "&#x3c;",
        "&evil;",
        "%evil;",
    ),
    *('<!DOCTYPE r [<!ENTITY e "x">]>', "<?xml version='1.0'?>", "<?evil?>", "<", ">", "'", '"'),
    *(
        "a'b\"c",
        "\r",
        "\n",
        "\r\n",
        "\t",
        " a ",
        "  ",
        "a\n\nb",
        "\x85",
        "\u2028",
        "\ufeff",
        "\u200b",
    ),
    *("\u4e2d\u6587", "\U0001f600", "e\u0301", "\ud7ff", "\ue000", "\ufffd", "\U0010fffd", "{0}%s"),
    *("<a xmlns='evil'/>", "../../etc/passwd", "a\\b", "&#13;", "xsi:nil", "NaN", "None", "0"),
]
NOT_IN_XML = ["\0", "\x01", "\x08", "\x0b", "\x0c", "\x1f", "\ufffe", "\uffff", "\ud800", "\udfff"]


def arguments_with(text: str) -> dict[str, Any]:
    """Return the arguments of a submission with a text in every place."""
    solid = re.sub(r"[\t\n\r \x85\u2028]", "", text)  # a URL has no white space
    return {
        "url": f"rtmp://host/app?{solid}",
        "callback": f"https://host/{solid}",
        "data_id": text,
        "biz_type": text,
        "storage_path": text,
        "user_info": UserInfo(token_id=text, extra={"Own": text}),
        "extra": {"Conf": {"Note": [text, {"Inner": text}]}, "Other": text},
    }


def written(arguments: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the leaves that the body of a submission must have."""
    text = arguments["data_id"]
    leaves = [
        *(("Url", arguments["url"]), ("DataId", text), ("TokenId", text), ("Own", text)),
        *(("BizType", text), ("Callback", arguments["callback"]), ("Note", text), ("Inner", text)),
        *(("Path", text), ("Type", "live_video"), ("Other", text)),
    ]
    return [(name, value) for name, value in leaves if value]


def leaves(body: bytes) -> list[tuple[str, str]]:
    """Return the leaves of a document, read by another parser than the package's."""
    root = ET.fromstring(body)
    assert all(not one.attrib and not (one.tail or "") for one in root.iter())
    return [(one.tag, one.text or "") for one in root.iter() if not len(one)]


async def test_s03_hostile_texts_arrive_as_texts() -> None:
    """The server reads the texts as they were given, and no other element."""
    bodies: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, Recorder)
        response = RESPONSE % b"a"
        while True:
            head = await reader.inner.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)\r\n", head)
            assert length is not None
            bodies.append(await reader.inner.readexactly(int(length[1])))
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(response) + response
            )

    assert len(TEXTS) + len(NOT_IN_XML) > 40
    async with serving(handle) as served, for_tests(served.url) as client:
        for text in TEXTS:
            arguments = arguments_with(text)
            await client.submit(**arguments)
            assert leaves(bodies.pop()) == written(arguments)
        for text in NOT_IN_XML:
            for name, value in arguments_with(f"a{text}b").items():
                with pytest.raises(ConfigurationError, match=rf"\A{name}"):
                    await client.submit(**{"url": "rtmp://host/app", name: value})
        assert bodies == []


@settings(max_examples=times(5000))
@given(st.text(min_size=1, max_size=30) | st.text("<>&;/!-[]'\"ax\r\n", min_size=1, max_size=12))
def test_s03_any_accepted_text_is_written_unchanged(text: str) -> None:
    """The body of an accepted submission has its elements and texts and nothing else."""
    arguments = arguments_with(text)
    try:
        body = ours.submit(**arguments).body
    except ConfigurationError:
        return
    assert leaves(body) == written(arguments)


@pytest.mark.parametrize(
    ("extra", "sent"),
    [
        ({Words.TAG: "x"}, ("Note", "x")),
        ({Lie("Note", "Evil><Evil/"): "x"}, ("Note", "x")),
        ({"Note": Words.JOB}, ("Note", JOB)),
        ({"Note": Lie("<a/>", "good")}, ("Note", "<a/>")),
        ({"Note": Numbers.THREE}, ("Note", "3")),
        ({"Note": Loud(1.5)}, ("Note", "1.5")),
    ],
    ids=["enum as name", "lying name", "enum", "lying text", "number of an enum", "lying number"],
)
def test_s03_a_value_is_its_content_not_what_it_prints(
    extra: dict[Any, Any], sent: tuple[str, str]
) -> None:
    """Names, texts and numbers of ``extra`` are written as they are, not as they print."""
    found = leaves(ours.submit("rtmp://host/app", extra=extra).body)
    assert [one for one in found if one[0] not in {"Url", "Conf", "Type"}] == [sent]
