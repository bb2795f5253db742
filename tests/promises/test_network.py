"""S4, S9, S11, S12: a signed request goes to the verified service, and nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import socket
import ssl
import threading
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trustme
from proofs import BACKENDS
from servers import Proxy, Recorder, answering, client_over, pass_on, serving

from ci_live_audit import (
    AccessDenied,
    AudioFinding,
    ConfigurationError,
    Credentials,
    LiveAuditClient,
    RetryPolicy,
    ServiceError,
    SnapshotFinding,
    TransportError,
)
from ci_live_audit.testing import ChaosProxy, WireFault

pytestmark = pytest.mark.waits  # for sockets

TOKEN = "canary-token"
JOB = (
    "<Response><JobsDetail><JobId>a</JobId><State>Success</State>{}</JobsDetail></Response>"
).format
SECRETS = (b"q-sign", b"authorization", b"canary", b"x-ci-security-token")
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
FAR_OFF = datetime(2200, 1, 1, tzinfo=UTC)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def client_of(
    backend: str, url: str, *, trusting: ssl.SSLContext | None = None, **options: Any
) -> contextlib.AbstractAsyncContextManager[LiveAuditClient]:
    """Open a client over a backend, which makes one attempt."""
    defaults: dict[str, Any] = {
        "credentials": Credentials("AKIDEXAMPLE", "canary-key", TOKEN),
        "retry": RetryPolicy(attempts=1),
        "timeout": 10.0,
    }
    return client_over(backend, url, verify=trusting, **(defaults | options))


# S9: TLS


class Authority:
    """A certificate authority, and a context that trusts it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ca = trustme.CA()
        self.ca.cert_pem.write_to_path(str(folder / "ca.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
        self.trusting = ssl.create_default_context(cafile=str(folder / "ca.pem"))

    def context(self, kind: str = "good") -> ssl.SSLContext:
        """Return a server's context, with a certificate that is good or has one fault."""
        issuer = trustme.CA() if kind == "wrong authority" else self.ca
        host = "elsewhere.example.test" if kind == "wrong host" else "127.0.0.1"
        ends = {"expired": LONG_AGO + timedelta(days=1)}.get(kind, FAR_OFF)
        begins = {"not yet valid": FAR_OFF - timedelta(days=1)}.get(kind, LONG_AGO)
        issued = issuer.issue_cert(host, "ci.example.test", not_before=begins, not_after=ends)
        if kind == "wrong host":
            issued = issuer.issue_cert(host)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        if kind == "self-signed":
            stranger = trustme.CA()
            with stranger.private_key_pem.tempfile() as key, stranger.cert_pem.tempfile() as cert:
                context.load_cert_chain(cert, key)
        else:
            issued.configure_cert(context)
        return context


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    return Authority(tmp_path, monkeypatch)


@contextlib.asynccontextmanager
async def listening_in(url: str) -> AsyncGenerator[tuple[str, bytearray], None]:
    """Yield a URL that leads to a server, and the bytes that clients send there."""
    heard = bytearray()
    scheme, port = url.partition(":")[0], int(url.rpartition(":")[2])

    async def link(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, Recorder)
        await pass_on(reader.inner, writer, port, heard)

    async with serving(link) as served:
        yield served.url.replace("http:", f"{scheme}:"), heard


def assert_unsent(error: TransportError) -> None:
    """Assert that nothing of the request can have arrived, because the connection failed."""
    assert not error.sent
    assert not error.may_have_happened
    assert error.attempts == 1
    names = {kind.__name__ for kind in type(error.__cause__).__mro__}
    assert names & {"ConnectError", "ConnectTimeout", "ProxyError", "SSLError"}, names


async def test_s09_a_good_certificate_is_accepted(backend: str, authority: Authority) -> None:
    """With a valid certificate of a trusted authority for the host, calls succeed, encrypted."""
    async with (
        serving(answering(JOB("").encode()), authority.context()) as served,
        listening_in(served.url) as (url, heard),
        client_of(backend, url, trusting=authority.trusting) as client,
    ):
        assert (await client.query("a")).job_id == "a"
        assert (await client.query("a")).job_id == "a"
        assert len(served.requests) == 2
        assert len(heard) > 500
        assert not any(secret in bytes(heard).lower() for secret in SECRETS)


@pytest.mark.parametrize(
    "kind", ["wrong authority", "wrong host", "expired", "not yet valid", "self-signed"]
)
async def test_s09_a_bad_certificate_ends_the_call_unsent(
    backend: str, authority: Authority, kind: str
) -> None:
    """The call ends in a `TransportError` about the certificate; no byte of the request leaves."""
    async with (
        serving(answering(JOB("").encode()), authority.context(kind)) as served,
        listening_in(served.url) as (url, heard),
        client_of(backend, url, trusting=authority.trusting) as client,
    ):
        with pytest.raises(TransportError, match=r"(?i)certificate") as caught:
            await client.submit("rtmp://live.example.com/app/a")
        assert_unsent(caught.value)
        assert served.requests == []
        assert not any(secret in bytes(heard).lower() for secret in SECRETS)
        assert not caught.value.transient
        with pytest.raises(TransportError, match=r"(?i)certificate") as caught:
            await client.wait("a")  # at once: no waiting makes it good
        assert caught.value.attempts == 1


@pytest.mark.parametrize("of_server", [True, False], ids=["server", "client"])
async def test_s09_no_version_of_tls_in_common_ends_a_call_at_once(
    backend: str, authority: Authority, of_server: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a call nor a wait is repeated, whichever side needs the newer version."""
    context = authority.context()
    if of_server:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        authority.trusting.maximum_version = ssl.TLSVersion.TLSv1_2
    else:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        authority.trusting.minimum_version = ssl.TLSVersion.TLSv1_3
    monkeypatch.setattr("httpx.create_ssl_context", lambda: authority.trusting)  # of our own

    def refuse() -> None:
        # Unlike asyncio, which hangs up, this sends the alert.
        with contextlib.suppress(OSError):  # the listener is shut down at the end
            while True:
                with listener.accept()[0] as link, contextlib.suppress(ssl.SSLError):
                    context.wrap_socket(link, server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=refuse)
        thread.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        try:
            async with client_of(backend, url, trusting=authority.trusting) as client:
                for call in (client.query, client.wait):
                    with pytest.raises(TransportError) as caught:
                        await call("a")
                    assert_unsent(caught.value)
                    assert not caught.value.transient
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


BREAKS = [WireFault.refuse(), WireFault.cut(), WireFault.reset()]
BREAKS += [fault(at) for fault in (WireFault.cut, WireFault.reset) for at in (0, 1, 5, 100, 600)]
BREAKS += [WireFault.corrupt(at, 4) for at in (0, 3, 60, 300)]


@pytest.mark.parametrize("fault", BREAKS, ids=str)
async def test_s09_a_broken_handshake_ends_the_call_unsent(
    backend: str, authority: Authority, fault: WireFault
) -> None:
    """A handshake that is cut, reset or corrupted at any byte leaves the request unsent."""
    async with (
        serving(answering(JOB("").encode()), authority.context()) as served,
        ChaosProxy(served.url) as proxy,
        client_of(backend, proxy.url, trusting=authority.trusting) as client,
    ):
        proxy.inject(fault, times=1)
        with pytest.raises(TransportError) as caught:
            await client.submit("rtmp://live.example.com/app/a")
        assert_unsent(caught.value)
        assert served.requests == []
        assert (await client.query("a")).job_id == "a"


@pytest.mark.parametrize("after", [None, 0, 5, 600])
async def test_s09_a_stalled_handshake_ends_the_call_unsent(
    backend: str, authority: Authority, after: int | None
) -> None:
    """A handshake that stalls is a timeout of the connection, with the request unsent."""
    async with (
        serving(answering(JOB("").encode()), authority.context()) as served,
        ChaosProxy(served.url) as proxy,
        client_of(backend, proxy.url, trusting=authority.trusting, timeout=0.4) as client,
    ):
        proxy.inject(WireFault.stall(after), times=1)
        with pytest.raises(TransportError, match="no connection within") as caught:
            await client.submit("rtmp://live.example.com/app/a")
        assert_unsent(caught.value)
        assert served.requests == []


async def test_s09_tls_is_spoken_to_servers_without(backend: str) -> None:
    """A server without TLS sees the start of a handshake, and nothing of the request."""
    heard = bytearray()

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, Recorder)
        heard.extend(await reader.inner.read(65536))
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    async with serving(plain) as served:
        url = served.url.replace("http:", "https:")
        async with client_of(backend, url) as client:
            with pytest.raises(TransportError) as caught:
                await client.submit("rtmp://live.example.com/app/a")
    assert_unsent(caught.value)
    assert heard[:2] == b"\x16\x03"
    assert not any(secret in bytes(heard).lower() for secret in SECRETS)


async def test_s09_plain_http_at_a_tls_server_is_an_error(
    backend: str, authority: Authority
) -> None:
    """A call by plain HTTP to a TLS server ends in one `TransportError`."""
    async with serving(answering(JOB("").encode()), authority.context()) as served:
        async with client_of(backend, served.url.replace("https:", "http:")) as client:
            with pytest.raises(TransportError) as caught:
                await client.query("a")
        assert caught.value.attempts == 1
        assert served.requests == []


# S4: redirects


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
@pytest.mark.parametrize("operation", ["query", "cancel", "submit"])
async def test_s04_redirects_are_not_followed(backend: str, operation: str, status: int) -> None:
    """The other host sees no connection, and the error has the location."""
    async with serving(answering(JOB("").encode())) as other:
        location = f"Location: {other.url}/elsewhere\r\n"
        async with (
            serving(answering(status=f"{status} Elsewhere", headers=location)) as served,
            client_of(backend, served.url, retry=RetryPolicy(base_delay=0.001)) as client,
        ):
            argument = "rtmp://live.example.com/app/a" if operation == "submit" else "a"
            with pytest.raises(ServiceError) as caught:
                await getattr(client, operation)(argument)
        assert other.accepted == 0
    assert f"{other.url}/elsewhere" in str(caught.value)
    assert caught.value.status == status
    assert len(served.requests) == caught.value.attempts == 1


# S11: proxies of the environment


HOST = "ci.example.test"


async def test_s11_https_goes_through_a_tunnel(
    backend: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy sees the name of the host, its own password and an encrypted request."""
    async with serving(answering(JOB("").encode()), authority.context()) as served:
        proxy = Proxy(served.url)
        async with serving(proxy) as door:
            with_password = door.url.replace("http://", "http://user:proxy-password@")
            monkeypatch.setenv("HTTPS_PROXY", with_password)
            url = f"https://{HOST}"
            async with client_of(backend, url, trusting=authority.trusting) as client:
                assert (await client.query("a")).job_id == "a"
                await client.submit("rtmp://live.example.com/app/a")
        assert served.requests
    assert {head.split(b"\r\n")[0] for head in proxy.heads} == {
        f"CONNECT {HOST}:443 HTTP/1.1".encode()
    }
    for head in proxy.heads:
        assert b"proxy-authorization: basic dXNlcjpwcm94eS1wYXNzd29yZA==".lower() in head.lower()
        assert not any(
            secret in head.lower().replace(b"proxy-", b"") for secret in (b"q-sign", b"canary")
        )
        assert b"\r\nauthorization" not in head.lower()
    assert not any(secret in bytes(proxy.heard).lower() for secret in SECRETS)
    for head in served.requests:
        assert b"proxy" not in head.lower()


@pytest.mark.parametrize(
    "refusal",
    [
        b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 Connection established\r\n\r\n",
        b"HTTP/1.1 2",
        b"",
    ],
    ids=["407", "401", "403", "502", "dies in the tunnel", "dies in its response", "dies"],
)
async def test_s11_a_proxy_that_fails_leaves_the_request_unsent(
    backend: str, monkeypatch: pytest.MonkeyPatch, refusal: bytes
) -> None:
    """A proxy that refuses or dies is one `TransportError`, with the request unsent."""
    proxy = Proxy("http://127.0.0.1:1", refusal)
    async with serving(proxy) as door:
        monkeypatch.setenv("HTTPS_PROXY", door.url)
        async with client_of(backend, f"https://{HOST}") as client:
            with pytest.raises(TransportError) as caught:
                await client.submit("rtmp://live.example.com/app/a")
    assert len(proxy.heads) == 1
    assert not any(secret in proxy.heads[0].lower() for secret in SECRETS)
    # How far a foreign client came before it lost the connection is not known.
    if backend == "own" or b"Content-Length" in refusal:
        assert not caught.value.sent, repr(caught.value.__cause__)
    assert caught.value.attempts == 1
    assert caught.value.transient == (not refusal.startswith(b"HTTP/1.1 4"))


async def test_s11_a_proxy_that_is_silent_leaves_the_request_unsent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A tunnel that is not opened in time leaves the request unsent."""

    async def silent(reader: Any, _: asyncio.StreamWriter) -> None:
        await reader.inner.read()
        await reader.inner.read()

    async with serving(silent) as door:
        monkeypatch.setenv("HTTPS_PROXY", door.url)
        async with client_of("own", f"https://{HOST}", timeout=0.2) as client:
            with pytest.raises(TransportError) as caught:
                await client.submit("rtmp://live.example.com/app/a")
    assert not caught.value.sent, repr(caught.value.__cause__)


async def test_s11_a_missing_proxy_is_not_bypassed(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that cannot reach its proxy does not connect directly, and sends nothing."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    async with client_of(backend, f"https://{HOST}") as client:
        with pytest.raises(TransportError) as caught:
            await client.submit("rtmp://live.example.com/app/a")
    assert_unsent(caught.value)


UNREACHED = {
    "name": ("https://ci.invalid", None, "cannot reach ci.invalid:443: name not known"),
    "refused": ("http://127.0.0.1:1", None, "cannot reach 127.0.0.1:1: connection refused"),
    "proxy": (
        f"https://{HOST}",
        "127.0.0.1:1",
        f"cannot reach {HOST}:443 through the proxy 127.0.0.1:1: ",
    ),
    "name of a proxy": (
        *(f"https://{HOST}:444", "proxy.invalid"),
        f"cannot reach {HOST}:444 through the proxy proxy.invalid:80: ",
    ),
}


@pytest.mark.parametrize("case", UNREACHED)
async def test_what_cannot_be_reached_is_named_at_once(
    backend: str, case: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The error names server and proxy, no password, and is in the log after the first attempt."""
    url, proxy, named = UNREACHED[case]
    monkeypatch.setattr("socket.getaddrinfo", partial(nowhere, socket.getaddrinfo))
    if proxy is not None:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:proxy-password@{proxy}")
    logged: list[int] = []
    options: dict[str, Any] = {
        "retry": RetryPolicy(attempts=2, base_delay=1e-9),
        "on_attempt": lambda _: logged.append(len(caplog.records)),
    }
    async with client_of(backend, url, **options) as client:
        for _ in range(2):
            with pytest.raises(TransportError) as caught:
                await client.submit("rtmp://live.example.com/app/a")
    assert named in str(caught.value)
    assert caught.value.transient
    assert not caught.value.may_have_happened
    assert logged == [1, 1, 1, 1]
    assert named in caplog.text
    assert caplog.records[0].levelname == "WARNING"
    assert "proxy-password" not in f"{caplog.text}{caught.value!r}{caught.value.to_dict()}"


def nowhere(find: Any, host: str | bytes, *more: Any, **options: Any) -> Any:
    """Resolve no name."""
    if str(host).rstrip("'").endswith("invalid"):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return find(host, *more, **options)


async def test_every_outage_of_the_network_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Once the server was reached, the next failure is told again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with client_of("own", f"http://127.0.0.1:{port}") as client:
        for told in (1, 2):
            with pytest.raises(TransportError):
                await client.query("a")
            assert len(caplog.records) == told
            async with serving(
                answering(JOB("").encode(), headers="Connection: close\r\n"), port=port
            ):
                await client.query("a")


@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
async def test_s11_no_proxy_and_loopback_are_reached_directly(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Neither excepted hosts nor those on this machine are reached by a proxy."""
    async with (
        serving(answering(b"")) as door,
        serving(answering(JOB("").encode()), authority.context()) as served,
    ):
        for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, door.url)
        async with client_of("own", served.url) as client:
            assert (await client.query("a")).job_id == "a"
        monkeypatch.setenv(variable, "example.test")
        monkeypatch.setattr("socket.getaddrinfo", partial(here, socket.getaddrinfo))
        async with client_of("own", served.url.replace("127.0.0.1", HOST)) as client:
            assert (await client.query("a")).job_id == "a"
        assert len(served.requests) == 2
        assert door.accepted == 0


def here(find: Any, host: str | bytes, *more: Any, **options: Any) -> Any:
    """Resolve the host of these tests to this machine."""
    return find("127.0.0.1" if host in {HOST, HOST.encode()} else host, *more, **options)


def test_s11_a_proxy_url_is_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error about an unusable proxy URL does not quote it: it may hold a password."""
    monkeypatch.setenv("HTTPS_PROXY", "gopher://user:proxy-password@proxy.example.test:1")
    with pytest.raises(ConfigurationError, match="proxy of the environment") as caught:
        LiveAuditClient("examplebucket-1250000000", "ap-beijing")
    assert "proxy-password" not in f"{caught.value!r} {caught.value}"


SAW = (
    b"<StringToSign>sha1\n1480932292;1481012292\n7db2\n</StringToSign>"
    b"<FormatString>get\n/video/auditing/a\n\n%s\n</FormatString>"
)


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        (b"", "(host {} was signed)"),
        (SAW % b"date=x&amp;xhost=y", "(host {} was signed)"),
        (
            SAW % b"date=x&amp;host=inner.example%3A8080&amp;x=y",
            "(host {} was signed, but the service saw inner.example:8080: does a proxy rewrite ",
        ),
        (SAW % b"host=%s", "(host {} was signed, and the service saw it)"),
    ],
    ids=["nothing", "no host", "another host", "this host"],
)
@pytest.mark.parametrize("hook", [False, True], ids=["", "in a hook"])
async def test_a_signature_that_does_not_match_names_the_hosts(
    said: bytes, hint: str, hook: bool
) -> None:
    """The error says which host was signed, and which one the service saw, where it says so."""

    async def raise_for_status(response: Any) -> None:
        response.raise_for_status()

    document = b"<Error><Code>SignatureDoesNotMatch</Code><Message>why</Message>%s</Error>"
    body = [document % said]

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = served.url.removeprefix("http://").replace(":", "%3A").encode()
        await answering(body[0].replace(b"%s", host), status="403 No")(reader, writer)

    async with serving(handle) as served, httpx.AsyncClient() as http:
        http.event_hooks["response"].append(raise_for_status)
        options: dict[str, Any] = {"http_client": http} if hook else {}
        async with client_of("own", served.url, **options) as client:
            with pytest.raises(AccessDenied) as caught:
                await client.query("a")
    hint = hint.format(served.url.removeprefix("http://"))
    assert f"403 SignatureDoesNotMatch why {hint}" in str(caught.value)
    assert caught.value.message == "why"
    assert hint.startswith(f"({caught.value.hint[:20]}")


# S12: URLs in results


async def test_s12_urls_in_results_are_never_fetched() -> None:
    """Whatever is done with a result, nothing connects to where its URLs point."""
    async with serving(answering(b"")) as canary:
        urls = (
            f"<Url>{canary.url}/stream</Url>"
            f"<Snapshot><Url>{canary.url}/1.jpg</Url><Result>1</Result><Label>Porn</Label></Snapshot>"
            f"<AudioSection><Url>{canary.url}/1.mp3</Url><Result>1</Result></AudioSection>"
        )
        async with (
            serving(answering(JOB(urls).encode())) as served,
            client_of("own", served.url) as client,
        ):
            job = await client.query("a")
            assert job.snapshots[0].url == f"{canary.url}/1.jpg"
            assert job.audio_sections[0].url == f"{canary.url}/1.mp3"
            assert job.url == f"{canary.url}/stream"
            assert await client.wait("a") is not None
            async with client.watch(["a"]) as findings:
                seen = [finding async for finding in findings]
            assert [type(finding) for finding in seen][:2] == [SnapshotFinding, AudioFinding]
            async with client.as_completed(["a"]) as outcomes:
                assert [outcome.unwrap().job_id async for outcome in outcomes] == ["a"]
            for it in (job, *seen):
                assert canary.url in repr(it)
            assert pickle.loads(pickle.dumps(job)) == job == attrs.evolve(job)
            assert canary.url in str(job.to_dict())
            await asyncio.sleep(0.05)
            assert len(served.requests) == 4
        assert canary.accepted == 0
