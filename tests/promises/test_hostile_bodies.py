"""S6, S7, S8: no body harms whoever asked for it.

Bombs are bounded in memory and work, whoever reads the wire; what is no answer is one error that
says all; and is asked for again only where that is safe.
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
from ci_live_audit.wire import documents

pytestmark = pytest.mark.waits  # for sockets

BUCKET, REGION = "examplebucket-1250000000", "ap-beijing"
CREDENTIALS = Credentials("AKIDEXAMPLE", "secretexample")
RETRY = RetryPolicy(attempts=3, base_delay=0.001, max_delay=0.001)
ONCE = RetryPolicy(attempts=1)
MAX_BODY = 2**20


@contextlib.asynccontextmanager
async def client_of(
    handler: Handler, backend: str = "own", **options: Any
) -> AsyncIterator[tuple[Served, LiveAuditClient]]:
    """A raw server, and a client over own connections or those of a library."""
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


def answer(inside: str = "", around: str = "") -> bytes:
    details = f"<JobsDetail><JobId>j</JobId><State>Auditing</State>{inside}</JobsDetail>"
    return f"<Response>{details}{around}</Response>".encode()


# S6: bodies that are too much


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
    "gzip said to be deflate": ("deflate", ZIPPED),
    "deflate said to be gzip": ("gzip", zlib.compress(FLOOD, 9)),
    "gzip in gzip": ("gzip", gzip.compress(ZIPPED)),
    "gzip, gzip": ("gzip, gzip", gzip.compress(ZIPPED)),
    "gzip twice": ("gzip\r\nContent-Encoding: gzip", gzip.compress(ZIPPED)),
    "x-gzip": ("x-gzip", ZIPPED),
    "members": ("gzip", gzip.compress(b"x" * 2**17) * 200),
    "empty members": ("gzip", gzip.compress(b"") * 20_000),
    "bytes after it": ("gzip", gzip.compress(b"ok") + FLOOD),
    "br": ("br", b"\xcb\xff\x7f\xf8\x2f\x00\x70" * 1000),
    "zstd": ("zstd", b"\x28\xb5\x2f\xfd\xa4\x00\x00\x90\x01\x55" + b"\x00" * 5000),
    "compress": ("compress", b"\x1f\x9d\x90" + b"\x00" * 5000),
    "unknown": ("bomb", FLOOD[:MAX_BODY]),
    "none of it": ("gzip", b"\x00" * MAX_BODY),
    "identity": ("identity", FLOOD),
    "nothing said": ("", FLOOD),
}


@pytest.mark.parametrize("backend", BACKENDS)
async def test_s06_bombs_are_bounded_in_memory(backend: str) -> None:
    """Of a body 100 times too large, no more than a few times the limit is ever in memory."""
    for name, (encoding, body) in BOMBS.items():
        headers = f"Content-Encoding: {encoding}\r\n" if encoding else ""
        # In pieces: what the server has still to send is in the memory of this process too.
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
    """Write bytes, then the same for ever, or the end."""

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
    "body without an end": raw(OK + b"\r\n", b"x" * 65536),
    "chunks without an end": raw(CHUNKED, b"10000\r\n" + b"x" * 65536 + b"\r\n"),
    "tiny chunks without an end": raw(CHUNKED, b"1\r\nx\r\n" * 1000),
    "headers without an end": raw(OK, b"X-More: " + b"x" * 1000 + b"\r\n"),
    "a header without an end": raw(OK + b"X-More: ", b"x" * 65536),
    "a status without an end": raw(b"HTTP/1.1 200 ", b"O" * 65536),
    "1xx without an end": raw(b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 100),
    "100 without an end": raw(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "blank lines without an end": raw(b"", b"\r\n" * 1000),
    "trailers without an end": raw(CHUNKED + b"1\r\nx\r\n0\r\n", b"X: " + b"y" * 1000 + b"\r\n"),
    "chunk extensions without an end": raw(CHUNKED + b"1;", b"x" * 65536),
}
BROKEN: dict[str, Handler] = {
    "huge header": raw(OK + b"X: " + b"x" * 1_000_000 + b"\r\n\r\n"),
    "many headers": raw(OK + b"X: y\r\n" * 100_000 + b"\r\n"),
    "huge chunk size": raw(CHUNKED + b"f" * 30 + b"\r\nx"),
    "chunk of 4 EiB that never comes": raw(CHUNKED + b"4000000000000000\r\nx"),
    "negative chunk size": raw(CHUNKED + b"-1\r\nx\r\n0\r\n\r\n"),
    "chunk size that is none": raw(CHUNKED + b"zz\r\nx\r\n0\r\n\r\n"),
    "chunks cut": raw(CHUNKED + b"5\r\nab"),
    "length too large": raw(lengths(str(len(JOB) + 1)) + JOB),
    "length too small": raw(lengths(str(len(JOB) - 1)) + JOB),
    "length of 20 digits": raw(lengths("9" * 20) + JOB),
    "length of 5000 digits": raw(lengths("9" * 5000) + JOB),
    "negative length": raw(lengths("-1") + JOB),
    "length that is none": raw(lengths("0x55") + JOB),
    "lengths that differ": raw(lengths("1", "2") + JOB),
    "lengths in a list": raw(lengths("1, 2") + JOB),
    "no HTTP": raw(JOB),
    "status of 4 digits": raw(b"HTTP/1.1 2000 OK\r\n\r\n" + JOB),
    "line break in a header": raw(OK + b"X: a\rb\r\n\r\n" + JOB),
    "NUL in a header": raw(OK + b"X: a\0b\r\n\r\n" + JOB),
    "nothing": raw(b""),
    "switch": raw(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + JOB),
}


@pytest.mark.parametrize("backend", BACKENDS)
async def test_s06_answers_without_an_end_are_bounded(backend: str) -> None:
    """Whatever the server goes on with for ever, the call ends with a typed error, in time."""

    async def ask(name: str, handler: Handler) -> None:
        async with client_of(handler, backend, max_body=MAX_BODY, timeout=0.15) as (served, client):
            with pytest.raises((DecodeError, TransportError)):
                await client.query("j")
        assert await served.all_closed(), name

    gc.collect()
    tracemalloc.start()
    try:
        await asyncio.gather(*(ask(*one) for one in ENDLESS.items()))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * MAX_BODY * len(ENDLESS)


@pytest.mark.parametrize("backend", BACKENDS)
async def test_s06_broken_answers_are_one_typed_error(backend: str) -> None:
    """Lengths that lie, headers that break and chunks that are none end in a typed error."""

    async def ask(name: str, handler: Handler) -> None:
        async with client_of(handler, backend, max_body=MAX_BODY, timeout=20.0) as (_, client):
            with pytest.raises((DecodeError, TransportError, ServiceError)) as caught:
                await client.query("j")
        assert not isinstance(caught.value, RequestTimeout), name
        assert (caught.value.operation, caught.value.job_id) == ("query", "j"), name
        assert caught.value.attempts == 1, name

    await asyncio.gather(*(ask(*one) for one in BROKEN.items()))


# S7: documents that cost more than they should


N = times(100_000)
ENTITIES = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
DOCUMENTS: dict[str, bytes] = {
    "billion laughs": b'<!DOCTYPE r [<!ENTITY e0 "ha">%b]>' % ENTITIES.encode()
    + answer("<Label>&e9;</Label>"),
    "quadratic blow-up": b'<!DOCTYPE r [<!ENTITY a "%b">]>' % (b"a" * N)
    + answer("<Label>" + "&a;" * N + "</Label>"),
    "laughs in attributes": b'<!DOCTYPE r [<!ENTITY e0 "ha">%b]>' % ENTITIES.encode()
    + answer("<A b='&e9;'/>"),
    "laughs of parameters": b"<!DOCTYPE r [<!ENTITY % a '<!ENTITY b \"c\">'> %a;]>" + answer(),
    "default attributes": b"<!DOCTYPE r [<!ATTLIST JobsDetail %b>]>"
    % b" ".join(b'a%d CDATA "x"' % n for n in range(20_000))
    + answer(),
    "element types": b"<!DOCTYPE r [%b]>" % (b"<!ELEMENT a ANY>" * 20_000) + answer(),
    "comment in the type": b"<!DOCTYPE r [<!--%b-->]>" % (b"x" * 2_000_000) + answer(),
    "type without entities": b"<!DOCTYPE Response>" + answer(),
    "type of html": b"<!DOCTYPE html>" + answer(),
    "depth": answer("<A>" * N + "</A>" * N),
    "depth outside": b"<A>" * N + b"</A>" * N,
    "depth unclosed": b"<p>" * N,
    "depth of json": b'{"JobsDetail":' + b'{"A":' * N + b"1" + b"}" * N + b"}",
    "depth of lists": b'{"JobsDetail":{"JobId":"j","State":"x","A":' + b"[" * N + b"]" * N + b"}}",
    "depth unclosed in json": b'{"JobsDetail":' + b"[" * N,
    "elements": answer("<A/>" * N),
    "elements outside": answer(around="<A/>" * N),
    "elements of all names": answer("".join(f"<A{n}/>" for n in range(N))),
    "snapshots": answer("<Snapshot/>" * N),
    "scenes": answer("".join(f"<A{n}Info><B/></A{n}Info>" for n in range(20_000))),
    "keywords": answer("<PornInfo>" + "<Keywords>a</Keywords>" * N + "</PornInfo>"),
    "commas": answer("<PornInfo><Keywords>" + "a," * N + "</Keywords></PornInfo>"),
    "text nodes": answer("x<A/>" * N),
    "comments": answer("<!---->" * N),
    "a long comment": answer("<!--" + "x" * 4_000_000 + "-->"),
    "instructions": answer("<?a?>" * N),
    "a long instruction": answer("<?a " + "x" * 4_000_000 + "?>"),
    "sections": answer("<Label>" + "<![CDATA[x]]>" * N + "</Label>"),
    "references": answer("<Label>" + "&#65;" * N + "</Label>"),
    "attributes": answer("<A " + " ".join(f"a{n}=''" for n in range(N)) + "/>"),
    "the same attribute": answer("<A " + "a='' " * N + "/>"),
    "a long attribute": answer("<A a='" + "x" * 4_000_000 + "'/>"),
    "namespaces": answer("<a:A xmlns:a='b'/>" * N),
    "nested namespaces": answer("".join(f"<A xmlns:a{n}='b'>" for n in range(N))),
    "a long name": answer("<" + "A" * 1_000_000 + "/>"),
    "a long text": answer("<Label>" + "x" * 4_000_000 + "</Label>"),
    "lines": answer("<Label>" + "\n" * N + "</Label>"),
    "blanks": b" " * 4_000_000 + answer(),
    "digits": answer("<Result>" + "9" * N + "</Result>"),
    "digits after the point": answer(f"<PornInfo><Score>0.{'1' * N}</Score></PornInfo>"),
    "json of objects": b'{"JobsDetail":{"JobId":"j","State":"x","A":[%b0]}}' % (b"{}," * N),
    "json of keys": b'{"JobsDetail":{%b"JobId":"j","State":"x"}}'
    % b"".join(b'"k%d":0,' % n for n in range(N)),
    "json of digits": b'{"JobsDetail":{"JobId":"j","State":"x","Result":%b}}' % (b"9" * N),
    "json of escapes": b'{"JobsDetail":{"JobId":"j","State":"x","A":"%b"}}' % (rb"\u0041" * N),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_s07_bombs_are_an_answer_or_an_error(name: str) -> None:
    """Every bomb is a result or an error of the library, as an answer and as a refusal."""
    body = DOCUMENTS[name]
    for read in (decode.job, decode.submitted, decode.cancelled):
        with contextlib.suppress(LiveAuditError):
            read(body)
    assert str(decode.error(500, {}, body))


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name.startswith(("type", "depth"))])
def test_s07_types_and_depth_are_refused(name: str) -> None:
    """A document type, whatever is in it, and any depth beyond what is meant are errors."""
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
def test_s07_bombs_around_the_size_that_is_large(
    size: int, front: str, unit: str, back: str
) -> None:
    """What is just too small to be streamed and what is just streamed mean the same."""
    room = size - len(answer(front + back))
    inside = front + unit * (room // len(unit))
    body = answer(inside + back) + b" " * (room % len(unit))
    assert len(body) == size
    with pytest.MonkeyPatch.context() as patch:
        found = [outcome(body)]
        for threshold in (-1, 2**30):
            patch.setattr(documents, "LARGE_BODY", threshold)
            found.append(outcome(body))
    assert found[0] == found[1] == found[2]


def outcome(body: bytes) -> object:
    """The result, or the kind of the error."""
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
    """No entity, type, stylesheet, schema or inclusion is asked for; no file is read."""
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
    """After every bomb, over a socket, the same client still gets what it asks for."""
    bodies = [body for name, body in DOCUMENTS.items() if len(body) < 2_000_000]
    queue = [one for body in bodies for one in (body, answer())]

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
    """Where the stack is small, depth is an error all the same and the process goes on."""
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


# S8: documents that are none


SEED = answer("<DataId>d</DataId><Type>live_video</Tpye>")
MALFORMED: dict[str, bytes] = {
    "seed": SEED,
    "seed of cancel": answer("<DataId>123</DataID>"),
    "html": b"<!DOCTYPE html><html><body><h1>It works!</h1><br></body></html>",
    "xhtml": b"<html><head><title>Login</title></head><body/></html>",
    "text": b"upstream connect error or disconnect/reset before headers",
    "nul": b"\0",
    "nul inside": answer("<Label>a\0b</Label>"),
    "control inside": answer("<Label>\x01</Label>"),
    "utf-16 that is utf-8": b'<?xml version="1.0" encoding="utf-16"?>' + answer(),
    "utf-16 cut in a character": answer().decode().encode("utf-16")[:-1],
    "gbk": answer("<Label>\u9ed1\u9ed1</Label>").decode().encode("gbk"),
    "gbk declared": b'<?xml version="1.0" encoding="gbk"?>'
    + answer("<Label>\u9ed1</Label>").decode().encode("gbk"),
    "unknown encoding": b'<?xml version="1.0" encoding="x-none"?>' + answer(),
    "mark alone": b"\xef\xbb\xbf",
    "marks": b"\xef\xbb\xbf\xef\xbb\xbf" + answer(),
    "declaration alone": b'<?xml version="1.0"?>',
    "declaration not first": b' <?xml version="1.0"?>' + answer(),
    "two roots": answer() + answer(),
    "text after the root": answer() + b"x",
    "wrong case": answer().replace(b"Response", b"response"),
    "wrong case of details": answer().replace(b"JobsDetail", b"jobsdetail"),
    "wrong case of id": answer().replace(b"JobId", b"jobid"),
    "wrong root": answer().replace(b"Response", b"Result"),
    "namespace": answer().replace(b"Response", b"a:Response"),
    "several details": answer(around="<JobsDetail><JobId>k</JobId></JobsDetail>"),
    "empty details": b"<Response><JobsDetail/></Response>",
    "no details": b"<Response><RequestId>r</RequestId></Response>",
    "details of text": b"<Response><JobsDetail>j</JobsDetail></Response>",
    "two ids": answer("<JobId>k</JobId>"),
    "empty id": answer().replace(b">j<", b"><"),
    "crossed": b"<Response><JobsDetail></Response></JobsDetail>",
    "no value": answer("<A b/>"),
    "ampersand": answer("<Label>a & b</Label>"),
    "entity of html": answer("<Label>&nbsp;</Label>"),
    "reference to nothing": answer("<Label>&#0;</Label>"),
    "json list": b"[]",
    "json list of jobs": b'[{"JobsDetail":{"JobId":"j","State":"x"}}]',
    "json text": b'"j"',
    "json number": b"5",
    "json null": b"null",
    "json NaN": b"NaN",
    "NaN in json": b'{"JobsDetail":{"JobId":"j","State":"x","A":NaN}}',
    "infinity in json": b'{"JobsDetail":{"JobId":"j","State":"x","A":-Infinity}}',
    "too much for json": b'{"JobsDetail":{"JobId":"j","State":"x","A":1e999}}',
    "json cut": b'{"JobsDetail":{"JobId":"j","State":"x"',
    "two jsons": b'{"JobsDetail":{"JobId":"j","State":"x"}}{}',
    "json of python": b"{'JobsDetail':{'JobId':'j','State':'x'}}",
    "json of another": b'{"error":"not found"}',
    "json id of null": b'{"JobsDetail":{"JobId":null,"State":"x"}}',
    "json id of a list": b'{"JobsDetail":{"JobId":["j"],"State":"x"}}',
    "json that is not utf-8": b'{"JobsDetail":{"JobId":"j","State":"\xff"}}',
    **{f"cut at {at}": answer("<Label>\u9ed1</Label>")[:at] for at in (1, 9, 10, 30, 77, 79, 100)},
}
VERBS: dict[str, Callable[[LiveAuditClient], Any]] = {
    "query": lambda client: client.query("j"),
    "cancel": lambda client: client.cancel("j"),
    "submit": lambda client: client.submit("rtmp://host/app"),
}


@pytest.mark.parametrize("framed", [True, False], ids=["with a length", "until the end"])
@pytest.mark.parametrize("verb", VERBS)
async def test_s08_what_is_no_answer_is_one_error_that_says_all(verb: str, framed: bool) -> None:
    """It names the call, the job, the attempts, the request id and what came; submit never repeats.

    A value in its place that cannot be read will not be better the next time, so that is not
    repeated either.
    """
    id_line = "x-ci-request-id: NjI2\r\n"
    # To a cancel an empty answer is one: the status has said it all.
    nothing = {} if verb == "cancel" else {"empty": b"", "blanks": b" \r\n\t "}
    for name, body in (MALFORMED | nothing).items():
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
        pytest.param(b"\xef\xbb\xbf" + answer(), id="mark"),
        pytest.param(answer().decode().encode("utf-16"), id="utf-16 with a mark"),
        pytest.param(answer().decode().encode("utf-16-be"), id="utf-16 without a mark"),
        pytest.param(b"\n" + answer() + b"\n\n", id="blank lines"),
        pytest.param(b"<!-- c -->" + answer() + b"<?p?>", id="comment and instruction around"),
        pytest.param(b'\xef\xbb\xbf{"JobsDetail":{"JobId":"j","State":"Auditing"}}', id="json"),
    ],
)
async def test_s08_what_is_an_answer_in_another_dress_is_read(body: bytes) -> None:
    """Marks, encodings that XML knows by itself, blank lines and comments change nothing."""
    async with client_of(answering(body)) as (_, client):
        job = await client.query("j")
    assert (job.job_id, job.state.value, dict(job.extra)) == ("j", "Auditing", {})
