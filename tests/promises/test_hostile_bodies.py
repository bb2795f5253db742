"""S6, S7, S8: no response body harms the client.

Bombs are bounded in memory and work with every HTTP library; a body that is not a result is one
error with all the facts, and is requested again only where that is safe.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from proofs import BACKENDS, times
from servers import Handler, Recorder, Served, answering, serving

from ci_live_audit import (
    CancelledJob,
    Credentials,
    DecodeError,
    LiveAuditClient,
    LiveAuditError,
    RequestTimeout,
    RetryPolicy,
    ServiceError,
    TransportError,
    decode,
)
from ci_live_audit.testing.render import error_document
from ci_live_audit.wire import documents

pytestmark = pytest.mark.waits  # on sockets

BUCKET, REGION = "examplebucket-1250000000", "ap-beijing"
CREDENTIALS = Credentials("AKIDEXAMPLE", "secretexample")
RETRY = RetryPolicy(attempts=3, base_delay=0.001, max_delay=0.001)
ONCE = RetryPolicy(attempts=1)
MAX_BODY = 2**20


@contextlib.asynccontextmanager
async def client_of(
    handler: Handler, backend: str = "own", **options: Any
) -> AsyncIterator[tuple[Served, LiveAuditClient]]:
    """Run a raw server, and a client with its own connections or those of an HTTP library."""
    options = {"retry": ONCE, "timeout": 5.0, "rate": 1000, **options}
    library = BACKENDS[backend]
    async with contextlib.AsyncExitStack() as stack:
        served = await stack.enter_async_context(serving(handler))
        http = library and await stack.enter_async_context(library.AsyncClient(trust_env=False))
        client = LiveAuditClient(
            BUCKET,
            REGION,
            credentials=CREDENTIALS,
            endpoint=served.url,
            http_client=http,
            **options,
        )
        yield served, await stack.enter_async_context(client)


def response(inside: str = "", around: str = "") -> bytes:
    details = f"<JobsDetail><JobId>j</JobId><State>Auditing</State>{inside}</JobsDetail>"
    return f"<Response>{details}{around}</Response>".encode()


# S6: oversized bodies


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    return packer.compress(data) + packer.flush()


FLOOD = bytes(100 * MAX_BODY)
ZIPPED = gzip.compress(FLOOD)
BOMBS: dict[str, tuple[str, bytes]] = {
    "gzip": ("gzip", ZIPPED),
    "GZip": ("GZip", ZIPPED),
    "deflate": ("deflate", zlib.compress(FLOOD, 9)),
    "raw deflate": ("deflate", deflated(FLOOD)),
    "gzip declared as deflate": ("deflate", ZIPPED),
    "deflate declared as gzip": ("gzip", zlib.compress(FLOOD, 9)),
    "gzip in gzip": ("gzip", gzip.compress(ZIPPED)),
    "gzip, gzip": ("gzip, gzip", gzip.compress(ZIPPED)),
    "gzip twice": ("gzip\r\nContent-Encoding: gzip", gzip.compress(ZIPPED)),
    "x-gzip": ("x-gzip", ZIPPED),
    "members": ("gzip", gzip.compress(b"x" * 2**17) * 200),
    "empty members": ("gzip", gzip.compress(b"") * 20_000),
    "bytes after the end": ("gzip", gzip.compress(b"ok") + FLOOD),
    "br": ("br", b"\xcb\xff\x7f\xf8\x2f\x00\x70" * 1000),
    "zstd": ("zstd", b"\x28\xb5\x2f\xfd\xa4\x00\x00\x90\x01\x55" + b"\x00" * 5000),
    "compress": ("compress", b"\x1f\x9d\x90" + b"\x00" * 5000),
    "unknown": ("bomb", FLOOD[:MAX_BODY]),
    "not gzip": ("gzip", b"\x00" * MAX_BODY),
    "identity": ("identity", FLOOD),
    "not declared": ("", FLOOD),
}


@pytest.mark.parametrize("backend", BACKENDS)
async def test_s06_bombs_are_bounded_in_memory(backend: str) -> None:
    """A body of 100 times the limit never takes more memory than three times the limit."""
    async with client_of(answering(b"no"), backend) as (_, client):
        with pytest.raises(DecodeError):
            await client.query("j")  # loads what the first call needs
    for name, (encoding, body) in BOMBS.items():
        headers = f"Content-Encoding: {encoding}\r\n" if encoding else ""
        # In pieces: the memory of this process also holds what the server has not sent yet.
        pieces = [body[start : start + 2**16] for start in range(0, len(body), 2**16)]
        handler = answering(*pieces, headers=headers)
        async with client_of(handler, backend, max_body=MAX_BODY) as (_, client):
            gc.collect()
            tracemalloc.start()
            try:
                with pytest.raises(DecodeError):
                    await client.query("j")
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert peak < 3 * MAX_BODY, (name, peak)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
JOB = b"<Response><JobsDetail><JobId>j</JobId><State>Auditing</State></JobsDetail></Response>"


def raw(first: bytes, again: bytes = b"", *, close: bool = True) -> Handler:
    """Write ``first``, then ``again`` for ever or, without it, the end."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, Recorder)
        await reader.request()
        writer.write(first)
        await writer.drain()
        while again:
            writer.write(again)
            await writer.drain()
            await asyncio.sleep(0)
        if not close:
            await reader.inner.read()

    return handle


def lengths(*values: str) -> bytes:
    lines = "".join(f"Content-Length: {value}\r\n" for value in values)
    return f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode()


OK = b"HTTP/1.1 200 OK\r\n"
ENDLESS: dict[str, Handler] = {
    "endless body": raw(OK + b"\r\n", b"x" * 65536),
    "endless chunks": raw(CHUNKED, b"10000\r\n" + b"x" * 65536 + b"\r\n"),
    "endless tiny chunks": raw(CHUNKED, b"1\r\nx\r\n" * 1000),
    "endless headers": raw(OK, b"X-More: " + b"x" * 1000 + b"\r\n"),
    "endless header": raw(OK + b"X-More: ", b"x" * 65536),
    "endless status": raw(b"HTTP/1.1 200 ", b"O" * 65536),
    "endless 1xx": raw(b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 100),
    "endless 100": raw(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "endless blank lines": raw(b"", b"\r\n" * 1000),
    "endless trailers": raw(CHUNKED + b"1\r\nx\r\n0\r\n", b"X: " + b"y" * 1000 + b"\r\n"),
    "endless chunk extensions": raw(CHUNKED + b"1;", b"x" * 65536),
}
BROKEN: dict[str, Handler] = {
    "huge header": raw(OK + b"X: " + b"x" * 1_000_000 + b"\r\n\r\n"),
    "many headers": raw(OK + b"X: y\r\n" * 100_000 + b"\r\n"),
    "huge chunk size": raw(CHUNKED + b"f" * 30 + b"\r\nx"),
    "chunk of 4 EiB that never arrives": raw(CHUNKED + b"4000000000000000\r\nx"),
    "negative chunk size": raw(CHUNKED + b"-1\r\nx\r\n0\r\n\r\n"),
    "invalid chunk size": raw(CHUNKED + b"zz\r\nx\r\n0\r\n\r\n"),
    "chunks cut": raw(CHUNKED + b"5\r\nab"),
    "length too large": raw(lengths(str(len(JOB) + 1)) + JOB),
    "length too small": raw(lengths(str(len(JOB) - 1)) + JOB),
    "length of 20 digits": raw(lengths("9" * 20) + JOB),
    "length of 5000 digits": raw(lengths("9" * 5000) + JOB),
    "negative length": raw(lengths("-1") + JOB),
    "invalid length": raw(lengths("0x55") + JOB),
    "lengths that differ": raw(lengths("1", "2") + JOB),
    "lengths in a list": raw(lengths("1, 2") + JOB),
    "not HTTP": raw(JOB),
    "status of 4 digits": raw(b"HTTP/1.1 2000 OK\r\n\r\n" + JOB),
    "line break in a header": raw(OK + b"X: a\rb\r\n\r\n" + JOB),
    "NUL in a header": raw(OK + b"X: a\0b\r\n\r\n" + JOB),
    "nothing": raw(b""),
    "switch": raw(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + JOB),
}


@pytest.mark.parametrize("backend", BACKENDS)
async def test_s06_endless_responses_are_bounded(backend: str) -> None:
    """A call whose response never ends fails with a typed error within its deadline."""

    async def query(name: str, handler: Handler) -> None:
        async with client_of(handler, backend, max_body=MAX_BODY, timeout=0.15) as (served, client):
            with pytest.raises((DecodeError, TransportError)):
                await client.query("j")
        assert await served.all_closed(), name

    gc.collect()
    tracemalloc.start()
    try:
        await asyncio.gather(*(query(*one) for one in ENDLESS.items()))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * MAX_BODY * len(ENDLESS)


@pytest.mark.parametrize("backend", BACKENDS)
async def test_s06_broken_responses_are_one_typed_error(backend: str) -> None:
    """Wrong lengths, broken headers and invalid chunks end in one typed error."""

    async def query(name: str, handler: Handler) -> None:
        async with client_of(handler, backend, max_body=MAX_BODY, timeout=20.0) as (_, client):
            with pytest.raises((DecodeError, TransportError, ServiceError)) as caught:
                await client.query("j")
        assert not isinstance(caught.value, RequestTimeout), name
        assert (caught.value.operation, caught.value.job_id) == ("query", "j"), name
        assert caught.value.attempts == 1, name

    await asyncio.gather(*(query(*one) for one in BROKEN.items()))


# S7: expensive documents


N = times(100_000)
ENTITIES = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
DOCUMENTS: dict[str, bytes] = {
    "billion laughs": b'<!DOCTYPE r [<!ENTITY e0 "ha">%b]>' % ENTITIES.encode()
    + response("<Label>&e9;</Label>"),
    "quadratic blow-up": b'<!DOCTYPE r [<!ENTITY a "%b">]>' % (b"a" * N)
    + response("<Label>" + "&a;" * N + "</Label>"),
    "laughs in attributes": b'<!DOCTYPE r [<!ENTITY e0 "ha">%b]>' % ENTITIES.encode()
    + response("<A b='&e9;'/>"),
    "laughs of parameters": b"<!DOCTYPE r [<!ENTITY % a '<!ENTITY b \"c\">'> %a;]>" + response(),
    "default attributes": b"<!DOCTYPE r [<!ATTLIST JobsDetail %b>]>"
    % b" ".join(b'a%d CDATA "x"' % n for n in range(20_000))
    + response(),
    "element types": b"<!DOCTYPE r [%b]>" % (b"<!ELEMENT a ANY>" * 20_000) + response(),
    "comment in the type": b"<!DOCTYPE r [<!--%b-->]>" % (b"x" * 2_000_000) + response(),
    "type without entities": b"<!DOCTYPE Response>" + response(),
    "type of html": b"<!DOCTYPE html>" + response(),
    "depth": response("<A>" * N + "</A>" * N),
    "depth outside": b"<A>" * N + b"</A>" * N,
    "depth unclosed": b"<p>" * N,
    "depth of json": b'{"JobsDetail":' + b'{"A":' * N + b"1" + b"}" * N + b"}",
    "depth of lists": b'{"JobsDetail":{"JobId":"j","State":"x","A":' + b"[" * N + b"]" * N + b"}}",
    "depth unclosed in json": b'{"JobsDetail":' + b"[" * N,
    "elements": response("<A/>" * N),
    "elements outside": response(around="<A/>" * N),
    "elements of all names": response("".join(f"<A{n}/>" for n in range(N))),
    "snapshots": response("<Snapshot/>" * N),
    "scenes": response("".join(f"<A{n}Info><B/></A{n}Info>" for n in range(20_000))),
    "keywords": response("<PornInfo>" + "<Keywords>a</Keywords>" * N + "</PornInfo>"),
    "commas": response("<PornInfo><Keywords>" + "a," * N + "</Keywords></PornInfo>"),
    "text nodes": response("x<A/>" * N),
    "comments": response("<!---->" * N),
    "a long comment": response("<!--" + "x" * 4_000_000 + "-->"),
    "instructions": response("<?a?>" * N),
    "a long instruction": response("<?a " + "x" * 4_000_000 + "?>"),
    "sections": response("<Label>" + "<![CDATA[x]]>" * N + "</Label>"),
    "references": response("<Label>" + "&#65;" * N + "</Label>"),
    "attributes": response("<A " + " ".join(f"a{n}=''" for n in range(N)) + "/>"),
    "the same attribute": response("<A " + "a='' " * N + "/>"),
    "a long attribute": response("<A a='" + "x" * 4_000_000 + "'/>"),
    "namespaces": response("<a:A xmlns:a='b'/>" * N),
    "nested namespaces": response("".join(f"<A xmlns:a{n}='b'>" for n in range(N))),
    "a long name": response("<" + "A" * 1_000_000 + "/>"),
    "a long text": response("<Label>" + "x" * 4_000_000 + "</Label>"),
    "lines": response("<Label>" + "\n" * N + "</Label>"),
    "blanks": b" " * 4_000_000 + response(),
    "digits": response("<Result>" + "9" * N + "</Result>"),
    "digits after the point": response(f"<PornInfo><Score>0.{'1' * N}</Score></PornInfo>"),
    "json of objects": b'{"JobsDetail":{"JobId":"j","State":"x","A":[%b0]}}' % (b"{}," * N),
    "json of keys": b'{"JobsDetail":{%b"JobId":"j","State":"x"}}'
    % b"".join(b'"k%d":0,' % n for n in range(N)),
    "json of digits": b'{"JobsDetail":{"JobId":"j","State":"x","Result":%b}}' % (b"9" * N),
    "json of escapes": b'{"JobsDetail":{"JobId":"j","State":"x","A":"%b"}}' % (rb"\u0041" * N),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_s07_bombs_are_a_result_or_an_error(name: str) -> None:
    """Every bomb is a result or an error of the library, whatever its status."""
    body = DOCUMENTS[name]
    for read in (decode.job, decode.submitted, decode.cancelled):
        with contextlib.suppress(LiveAuditError):
            read(body)
    assert str(decode.error(500, {}, body))


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name.startswith(("type", "depth"))])
def test_s07_document_types_and_depth_are_refused(name: str) -> None:
    """Any document type and any excessive depth are errors."""
    with pytest.raises(DecodeError):
        decode.job(DOCUMENTS[name])


@pytest.mark.parametrize("size", [documents.LARGE_BODY + offset for offset in (-1, 0, 1, 8192)])
@pytest.mark.parametrize(
    ("front", "unit", "back"),
    [
        ("", "<A/>", ""),
        ("", "<A>", ""),
        ("<!--", "x", "-->"),
        ("<A b='", "x", "'/>"),
        ("<Label>", "&#65;", "</Label>"),
        ("<Label>", "<![CDATA[x]]>", "</Label>"),
        ("<Snapshot>", "<PornInfo><Keywords>a</Keywords></PornInfo>", "</Snapshot>"),
    ],
)
def test_s07_bombs_read_the_same_around_the_threshold_of_streaming(
    size: int, front: str, unit: str, back: str
) -> None:
    """A body gives the same result or error whether it is just streamed or just not."""
    room = size - len(response(front + back))
    inside = front + unit * (room // len(unit))
    body = response(inside + back) + b" " * (room % len(unit))
    assert len(body) == size
    with pytest.MonkeyPatch.context() as patch:
        found = [outcome(body)]
        for threshold in (-1, 2**30):
            patch.setattr(documents, "LARGE_BODY", threshold)
            found.append(outcome(body))
    assert found[0] == found[1] == found[2]


def outcome(body: bytes) -> object:
    """Return the result, or the class of the error."""
    try:
        return decode.job(body)
    except LiveAuditError as error:
        return type(error)


EXTERNAL = [
    '<!DOCTYPE r SYSTEM "{0}"><Response/>',
    '<!DOCTYPE r PUBLIC "a" "{0}"><Response/>',
    '<!DOCTYPE r [<!ENTITY a SYSTEM "{0}">]><Response>&a;</Response>',
    '<!DOCTYPE r [<!ENTITY % a SYSTEM "{0}"> %a;]><Response/>',
    '<!DOCTYPE r [<!NOTATION a SYSTEM "{0}">]><Response/>',
    '<Response xmlns:xi="http://www.w3.org/2001/XInclude"><xi:include href="{0}"/></Response>',
    '<?xml-stylesheet href="{0}"?><Response/>',
    '<Response xmlns:x="http://www.w3.org/2001/XMLSchema-instance" x:schemaLocation="a {0}"/>',
]


async def test_s07_nothing_in_a_document_is_fetched() -> None:
    """No entity, type, stylesheet, schema or inclusion is fetched, and no file is read."""
    async with serving(answering(b"canary")) as canary:
        for document in EXTERNAL:
            for target in (canary.url, "file:///etc/passwd", "/etc/passwd"):
                body = document.format(target).encode()
                async with client_of(answering(body)) as (_, client):
                    with pytest.raises(DecodeError) as caught:
                        await client.query("j")
                assert "root:" not in str(caught.value)
        assert canary.accepted == 0


async def test_s07_bombs_do_not_end_the_client() -> None:
    """After every bomb over a socket, the next query of the same client succeeds."""
    bodies = [body for name, body in DOCUMENTS.items() if len(body) < 2_000_000]
    queue = [one for body in bodies for one in (body, response())]

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, Recorder)
        while True:
            await reader.request()
            body = queue.pop(0)
            writer.write(lengths(str(len(body))) + body)

    async with client_of(handle, timeout=30.0) as (_, client):
        for _ in bodies:
            with contextlib.suppress(LiveAuditError):
                await client.query("j")
            assert (await client.query("j")).job_id == "j"


def test_s07_depth_does_not_end_the_process() -> None:
    """Excessive depth is an error even on a small stack, and the process survives."""
    program = """
import threading
from ci_live_audit import DecodeError, decode
n = 200_000
found = []
def read():
    for body in (b"<A>" * n + b"</A>" * n, b'{"A":' * n + b"1" + b"}" * n, b'{"A":' + b"[" * n):
        try:
            decode.job(body)
        except DecodeError as error:
            found.append(str(error))
        assert str(decode.error(500, {}, body))
threading.stack_size(256 * 1024)
thread = threading.Thread(target=read)
thread.start()
thread.join()
print(len(found))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, b"3"), done.stderr


# S8: bodies that are not a result


SEED = response("<DataId>d</DataId><Type>live_video</Tpye>")
MALFORMED: dict[str, bytes] = {
    "seed": SEED,
    "seed of cancel": response("<DataId>123</DataID>"),
    "html": b"<!DOCTYPE html><html><body><h1>It works!</h1><br></body></html>",
    "xhtml": b"<html><head><title>Login</title></head><body/></html>",
    "text": b"upstream connect error or disconnect/reset before headers",
    "nul": b"\0",
    "nul in a tag": response("<A\0/>"),
    "nul and another fault": response("<Label>a\0b & c</Label>"),
    "utf-16 cut in a character": response().decode().encode("utf-16")[:-1],
    "unknown encoding": b'<?xml version="1.0" encoding="x-none"?>' + response(),
    "mark alone": b"\xef\xbb\xbf",
    "declaration alone": b'<?xml version="1.0"?>',
    "two roots": response() + response(),
    "text after the root": response() + b"x",
    "wrong case": response().replace(b"Response", b"response"),
    "wrong case of details": response().replace(b"JobsDetail", b"jobsdetail"),
    "wrong case of id": response().replace(b"JobId", b"jobid"),
    "wrong root": response().replace(b"Response", b"Result"),
    "several details": response(around="<JobsDetail><JobId>k</JobId></JobsDetail>"),
    "namespace cut": response().replace(b"<Response", b"<a:Response"),
    "details of text": b"<Response><JobsDetail>j</JobsDetail></Response>",
    "two ids": response("<JobId>k</JobId>"),
    "empty id": response().replace(b">j<", b"><"),
    "crossed": b"<Response><JobsDetail></Response></JobsDetail>",
    "no value": response("<A b/>"),
    "ampersand": response("<Label>a & b</Label>"),
    "entity of html": response("<Label>&nbsp;</Label>"),
    "json list": b"[]",
    "json list of jobs": b'[{"JobsDetail":{"JobId":"j","State":"x"}}]',
    "json text": b'"j"',
    "json number": b"5",
    "json null": b"null",
    "json NaN": b"NaN",
    "NaN in json": b'{"JobsDetail":{"JobId":"j","State":"x","A":NaN}}',
    "infinity in json": b'{"JobsDetail":{"JobId":"j","State":"x","A":-Infinity}}',
    "too large for json": b'{"JobsDetail":{"JobId":"j","State":"x","A":1e999}}',
    "json cut": b'{"JobsDetail":{"JobId":"j","State":"x"',
    "two jsons": b'{"JobsDetail":{"JobId":"j","State":"x"}}{}',
    "json of python": b"{'JobsDetail':{'JobId':'j','State':'x'}}",
    "json of another": b'{"error":"not found"}',
    "json id of null": b'{"JobsDetail":{"JobId":null,"State":"x"}}',
    "json id of a list": b'{"JobsDetail":{"JobId":["j"],"State":"x"}}',
    **{
        f"cut at {at}": response("<Label>\u9ed1</Label>")[:at] for at in (1, 9, 10, 30, 77, 79, 100)
    },
}
# To a cancellation they say enough, with their status.
BARE: dict[str, bytes] = {
    "empty": b"",
    "blanks": b" \r\n\t ",
    "OK": b"OK",
    "empty response": b"<Response/>",
    "empty details": b"<Response><JobsDetail/></Response>",
    "no details": b"<Response><RequestId>r</RequestId></Response>",
    "empty json": b"{}",
    "json without details": b'{"Response":{"RequestId":"r"}}',
}
VERBS: dict[str, Callable[[LiveAuditClient], Any]] = {
    "query": lambda client: client.query("j"),
    "cancel": lambda client: client.cancel("j"),
    "submit": lambda client: client.submit("rtmp://host/app"),
}


@pytest.mark.parametrize("framed", [True, False], ids=["with a length", "until the end"])
@pytest.mark.parametrize("verb", VERBS)
async def test_s08_a_malformed_body_is_one_error_with_all_the_facts(
    verb: str, framed: bool
) -> None:
    """The error names the call, the job, the attempts, the request id and the body.

    Submit is never repeated. Neither is a call whose response has an unreadable value: the next
    response would have it too.
    """
    id_line = "x-ci-request-id: NjI2\r\n"
    for name, body in (MALFORMED | ({} if verb == "cancel" else BARE)).items():
        close = raw(f"HTTP/1.1 200 OK\r\n{id_line}\r\n".encode() + body)
        handler = answering(body, headers=id_line) if framed else close
        async with client_of(handler, retry=RETRY) as (served, client):
            with pytest.raises(DecodeError) as caught:
                await VERBS[verb](client)
            error = caught.value
            sent = len(served.requests)
        assert (error.operation, error.request_id) == (verb, "NjI2"), name
        assert error.job_id == (None if verb == "submit" else "j"), name
        assert error.attempts == sent, name
        assert sent == (3 if verb != "submit" and not error.path else 1), name
        assert error.path or error.excerpt == body.decode("utf-8", "replace")[:120], name
        assert error.may_have_happened, name
        for word in (verb, "NjI2", "attempt"):
            assert word in str(error), name


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\xef\xbb\xbf" + response(), id="mark"),
        pytest.param(response().decode().encode("utf-16"), id="utf-16 with a mark"),
        pytest.param(response().decode().encode("utf-16-be"), id="utf-16 without a mark"),
        pytest.param(b"\n" + response() + b"\n\n", id="blank lines"),
        pytest.param(b"<!-- c -->" + response() + b"<?p?>", id="comment and instruction around"),
        pytest.param(b"\xef\xbb\xbf\xef\xbb\xbf" + response(), id="marks"),
        pytest.param(b' \n<?xml version="1.0"?>' + response(), id="declaration not first"),
        pytest.param(b'<?xml version="1.0" encoding="utf8"?>' + response(), id="utf8"),
        pytest.param(b'<?xml version="1.0" encoding="gbk"?>' + response(), id="gbk"),
        pytest.param(b'<?xml version="1.0" encoding="utf-16"?>' + response(), id="not utf-16"),
        pytest.param(response().replace(b"Response", b"a:Response"), id="prefix"),
        pytest.param(b'\xef\xbb\xbf{"JobsDetail":{"JobId":"j","State":"Auditing"}}', id="json"),
    ],
)
async def test_s08_other_spellings_of_a_response_are_read(body: bytes) -> None:
    """Byte order marks, the encodings of XML itself, blank lines and comments change nothing."""
    async with client_of(answering(body)) as (_, client):
        job = await client.query("j")
    assert (job.job_id, job.state.value, dict(job.extra)) == ("j", "Auditing", {})


TEXTS = {
    "nul": (b"a\0b", "a\ufffdb"),
    "control": (b"\x01", "\ufffd"),
    "reference": (b"&#x1f;", "\ufffd"),
    "surrogates": (b"&#xD83D;&#xDE00;", "\U0001f600"),
    "half": (b"a\xe9\xbb", "a\ufffd"),
}


@pytest.mark.parametrize("name", TEXTS)
async def test_s08_what_viewers_wrote_costs_itself(name: str) -> None:
    """Characters that XML forbids are U+FFFD in a text, and everything beside it is read."""
    sent, text = TEXTS[name]
    body = response("<Label>L</Label>").replace(b"L<", sent + b"<")
    async with client_of(answering(body)) as (_, client):
        job = await client.query("j")
    assert (job.job_id, job.state.value, job.label) == ("j", "Auditing", text)
    assert job.to_dict()["label"].encode().decode() == text


@pytest.mark.parametrize("name", BARE)
async def test_s08_a_cancellation_needs_no_details(name: str) -> None:
    """A response that says no more than a request id is done, as its status says."""
    id_line = "x-ci-request-id: NjI2\r\n"
    async with client_of(answering(BARE[name], headers=id_line)) as (served, client):
        done = await client.cancel("j")
    assert done == CancelledJob(
        job_id="j", request_id="r" if b"RequestId" in BARE[name] else "NjI2"
    )
    assert len(served.requests) == 1


@pytest.mark.parametrize(
    "code", ["InternalError", "ServiceUnavailable", "NeverHeardOf", "AccessDenied"]
)
async def test_s08_a_submission_is_sent_once_whatever_a_success_says(code: str) -> None:
    """After an error document with status 200 the job may run, so a second one is not submitted."""
    async with client_of(answering(error_document(code, "why", "r")), retry=RETRY) as (
        served,
        client,
    ):
        with pytest.raises(ServiceError) as caught:
            await client.submit("rtmp://host/app")
        error = caught.value
        sent = len(served.requests)
        with pytest.raises(ServiceError):
            await client.query("j")
    assert (sent, error.attempts, error.code, error.status) == (1, 1, code, 200)
    assert error.may_have_happened is (code != "AccessDenied")
    assert len(served.requests) - sent == (
        3 if code in {"InternalError", "ServiceUnavailable"} else 1
    )
