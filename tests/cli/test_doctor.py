"""`doctor`: each problem is found and named."""

from __future__ import annotations

import contextlib
import gc
import re
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import servers
import trustme
from anyio.from_thread import start_blocking_portal
from command_line import NO_CREDENTIALS, Service, closed_port, parsed, run, serving
from servers import Proxy

from ci_live_audit import Credentials
from ci_live_audit.cli import doctor
from ci_live_audit.credentials import chain as default_chain
from ci_live_audit.testing import Fault
from ci_live_audit.testing.render import error_document

NAMES = ["versions", "settings", "credentials", "network", "clock", "service"]
HEAD = "HTTP/1.1 {} X\r\nContent-Length: {}\r\nConnection: close\r\n{}\r\n"


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as service:
        yield service


def checks(service: Service, *arguments: str, **environ: str | None) -> dict[str, tuple[bool, str]]:
    """Run doctor and return its checks by name; the exit code must agree with them."""
    result = service.run("doctor", *arguments, **environ)
    found = parsed(result)
    for check in found:
        assert check.keys() == {"schema", "kind", "name", "good", "text"}
        assert (check["schema"], check["kind"]) == (1, "check")
    assert result.exit_code == (0 if all(check["good"] for check in found) else 1)
    assert result.stderr == ""
    return {check["name"]: (check["good"], check["text"]) for check in found}


def failed(found: dict[str, tuple[bool, str]]) -> list[str]:
    return [name for name, (good, _) in found.items() if not good]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Collect what the servers and proxies of a test leave when their threads end."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@contextlib.contextmanager
def responding(response: bytes, certificate: trustme.LeafCert | None = None) -> Iterator[str]:
    """Serve connections that all get the same response; give the address."""
    context: ssl.SSLContext | None = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)

    def serve() -> None:
        with contextlib.suppress(OSError):  # the listener is shut down at the end
            while True:
                connection = listener.accept()[0]
                with contextlib.suppress(OSError):
                    if context is not None:
                        connection = context.wrap_socket(connection, server_side=True)
                    connection.recv(65536)
                    connection.sendall(response)
                    if context is not None:
                        connection = connection.unwrap()  # type: ignore[attr-defined]
                connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def refusal(status: int, code: str, date: str = "") -> bytes:
    body = error_document(code, "No.", "1")
    return HEAD.format(status, len(body), date).encode() + body


def test_everything_is_fine(service: Service) -> None:
    """Every check passes and says something useful."""
    found = checks(service)
    assert list(found) == NAMES
    assert failed(found) == []
    texts = {name: text for name, (_, text) in found.items()}
    assert re.match(r"Python 3\.\d+\.\d+, ci-live-audit \d", texts["versions"])
    assert "missing" not in texts["versions"]
    assert texts["settings"] == (
        f"bucket {service.emulator.bucket}, region {service.emulator.region}, {service.url}"
    )
    assert texts["credentials"] == (
        "from the environment: TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY; without a token"
    )
    assert texts["network"] == "127.0.0.1"
    assert re.fullmatch(r"[+-]\d s relative to the service", texts["clock"])


def test_a_table(service: Service) -> None:
    """The table has one line per check, marked ok or FAIL."""
    result = service.run("doctor", "-o", "table")
    assert (result.exit_code, result.stderr) == (0, "next: ci-live-audit moderate URL --cancel\n")
    assert [line[:4] for line in result.stdout.splitlines()] == ["ok  "] * 6
    result = service.run("doctor", "-o", "table", TENCENTCLOUD_SECRET_KEY="wrong")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].startswith("FAIL service: ")
    assert result.stderr.startswith("next: mend what is marked FAIL, the first one first")


def test_as_a_process(service: Service) -> None:
    """The script exits with 0 or 1."""
    assert service.start("doctor").returncode == 0
    assert service.start("doctor", TENCENTCLOUD_SECRET_KEY="wrong").returncode == 1


@pytest.mark.parametrize("variable", ["CI_LIVE_AUDIT_BUCKET", "TENCENTCLOUD_REGION"])
def test_a_missing_setting(service: Service, variable: str) -> None:
    """A missing setting is named; what does not need it is checked all the same."""
    found = checks(service, **{variable: None})
    assert list(found) == NAMES[:5]
    assert failed(found) == ["settings"]
    assert variable in found["settings"][1]
    found = checks(service, **{variable: None, "CI_LIVE_AUDIT_ENDPOINT": None})
    assert list(found) == NAMES[:3]


def test_every_wrong_setting_is_named(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them at once, and what else is wrong."""

    def nowhere(*_: object) -> str:
        raise OSError("no route to it")

    monkeypatch.setattr(default_chain, "_fetch", nowhere)
    wrong = ("--bucket", "mybucket", "--region", "beijing", "--endpoint", "ftp://example.com")
    found = checks(service, *wrong, **NO_CREDENTIALS)
    assert failed(found) == ["settings", "credentials"]
    text = found["settings"][1]
    assert "bucket: expected a name with its APPID" in text
    assert "did you mean ap-beijing?" in text
    assert "endpoint: expected http or https" in text
    assert "credentials=" not in found["credentials"][1]


def test_an_invalid_endpoint(service: Service) -> None:
    """An invalid endpoint is not shown, as it may contain a password."""
    found = checks(service, "--endpoint", "https://user:hunter2@example.com")
    assert failed(found) == ["settings"]
    assert "hunter2" not in str(found)


def test_without_an_endpoint_it_is_the_host_of_the_bucket(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings name the URL that follows from bucket and region."""
    with closed_port() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        found = checks(service, CI_LIVE_AUDIT_ENDPOINT=None)
    assert failed(found) == ["network"]
    bucket, region = service.emulator.bucket, service.emulator.region
    url = f"https://{bucket}.ci.{region}.myqcloud.com"
    assert found["settings"][1] == f"bucket {bucket}, region {region}, {url}"
    assert found["network"][1].startswith(f"cannot reach {bucket}.ci.{region}.myqcloud.com:443 ")


def test_no_credentials(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without credentials, all places where they were searched are named."""

    def nowhere(*_: object) -> str:
        raise OSError("no route to it")

    monkeypatch.setattr(default_chain, "_fetch", nowhere)
    found = checks(service, **NO_CREDENTIALS)
    assert list(found) == NAMES[:5]
    assert failed(found) == ["credentials"]
    assert "TENCENTCLOUD_SECRET_ID" in found["credentials"][1]
    assert "no CVM role" in found["credentials"][1]


def test_half_a_key_pair(service: Service) -> None:
    """If half of a key pair is set, the other half is named."""
    found = checks(service, TENCENTCLOUD_SECRET_KEY=None)
    assert failed(found) == ["credentials"]
    assert found["credentials"][1].startswith("TENCENTCLOUD_SECRET_KEY is missing")


def test_credentials_of_a_profile(service: Service, tmp_path: Path) -> None:
    """The source of the credentials is named, and whether there is a token."""
    service.emulator.credentials = Credentials("AKIDEXAMPLE", "secretexample", "tokenexample")
    path = tmp_path / ".tencentcloud" / "credentials"
    path.parent.mkdir()
    path.write_text(
        "[default]\nsecret_id = AKIDEXAMPLE\nsecret_key = secretexample\ntoken = tokenexample\n"
    )
    found = checks(service, **NO_CREDENTIALS)
    assert failed(found) == []
    assert found["credentials"][1] == f"from {path}; with a token"


@pytest.mark.parametrize("name", ["ID", "KEY"])
def test_a_refused_key(service: Service, name: str) -> None:
    """For a refused key the service's code is shown, without a hint about permissions."""
    found = checks(service, **{f"TENCENTCLOUD_SECRET_{name}": "wrong"})
    assert failed(found) == ["service"]
    assert re.search(r"40[13] \w+", found["service"][1])
    assert "ci:DescribeAuditingJob" not in found["service"][1]
    assert found["service"][1].endswith(
        {
            "ID": "key that is enabled? See https://console.tencentcloud.com/cam/capi",
            "KEY": "do the id and the key belong together?",
        }[name]
    )


def test_a_missing_permission(service: Service) -> None:
    """For a denied query the permission that it needs is named."""
    with responding(refusal(403, "AccessDenied")) as address:
        found = checks(service, "--endpoint", f"http://{address}")
    assert failed(found) == ["service"]
    assert "403 AccessDenied" in found["service"][1]
    assert found["service"][1].endswith("; is this account allowed to do ci:DescribeAuditingJob?")


def test_an_outage(service: Service) -> None:
    """An error of the service is shown."""
    service.emulator.inject(Fault.error(503), operation="query")
    found = checks(service, "--attempts", "1")
    assert failed(found) == ["service"]
    assert "503 ServiceUnavailable" in found["service"][1]


def test_another_server(service: Service) -> None:
    """A web page fails the service check, and an unreadable date skips the clock check."""
    page = HEAD.format(200, 6, "Date: today\r\n").encode() + b"<html>"
    with responding(page) as address:
        found = checks(service, "--endpoint", f"http://{address}", "--attempts", "1")
    assert list(found) == [name for name in NAMES if name != "clock"]
    assert failed(found) == ["service"]


# The network


@pytest.mark.parametrize("name", ["nowhere.invalid", "a..b", "x" * 64 + ".example"])
def test_an_unknown_host(service: Service, name: str) -> None:
    """An unknown host is shown with the resolver's error."""
    found = checks(service, "--endpoint", f"https://{name}")
    assert list(found) == NAMES[:4]
    assert failed(found) == ["network"]
    assert name in found["network"][1]
    assert len(found["network"][1]) > len(name) + 10


def test_a_refused_connection(service: Service) -> None:
    """The reason for a refused connection is shown."""
    with closed_port() as endpoint:
        found = checks(service, "--endpoint", endpoint)
    assert failed(found) == ["network"]
    address = endpoint.removeprefix("http://")
    assert found["network"][1] == f"cannot reach {address}: connection refused"


def test_a_silent_server(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not respond fails the check after the timeout."""
    monkeypatch.setattr(doctor, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        found = checks(service, "--endpoint", endpoint)
    assert failed(found) == ["network"]
    assert found["network"][1] == "127.0.0.1: no response within 0.2 s"


@pytest.mark.parametrize(
    ("response", "reason"),
    [(b"", "Server disconnected without sending"), (b"x" * 200_000, "buffer too long")],
)
def test_a_server_that_is_not_a_web_server(service: Service, response: bytes, reason: str) -> None:
    """A server that does not speak HTTP fails the network check."""
    with responding(response) as address:
        found = checks(service, "--endpoint", f"http://{address}")
    assert failed(found) == ["network"]
    assert reason in found["network"][1]


def test_an_untrusted_certificate(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrusted certificate is reported, and nothing is sent."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    certificate = trustme.CA().issue_cert("127.0.0.1")
    with responding(refusal(404, "AuditingJobNotFound"), certificate) as address:
        found = checks(service, "--endpoint", f"https://{address}")
    assert list(found) == NAMES[:4]
    assert failed(found) == ["network"]
    assert "certificate verify failed" in found["network"][1]
    assert found["network"][1].endswith("; certificates of certifi")


def test_a_certificate_for_another_host(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate for another host is reported."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    certificate = authority.issue_cert("example.com")
    with responding(refusal(404, "AuditingJobNotFound"), certificate) as address:
        found = checks(service, "--endpoint", f"https://{address}")
    assert failed(found) == ["network"]
    assert "mismatch" in found["network"][1]


def test_a_trusted_certificate(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a trusted certificate the TLS version is shown, and the service is queried."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    certificate = authority.issue_cert("127.0.0.1")
    with responding(refusal(404, "AuditingJobNotFound"), certificate) as address:
        found = checks(service, "--endpoint", f"https://{address}")
    assert failed(found) == []
    known, _, certificates = found["network"][1].partition("; ")
    assert re.fullmatch(r"127\.0\.0\.1 TLSv1\.[23]", known)
    assert certificates == f"certificates of {tmp_path / 'ca.pem'} (SSL_CERT_FILE)"


# The clock


@pytest.mark.parametrize("ahead", [3600, -3600])
def test_a_wrong_clock(ahead: float) -> None:
    """The offset of a wrong clock is shown; the client can cope with it."""
    with serving(now=lambda: time.time() + ahead) as service:
        found = checks(service)
    assert failed(found) == ["clock"]
    match = re.match(r"([+-]\d+) s relative to the service; set the clock", found["clock"][1])
    assert match
    assert abs(int(match[1]) + ahead) < 60
    assert found["service"] == (True, "it accepts the credentials")


def test_a_slightly_wrong_clock() -> None:
    """An offset that signatures tolerate passes."""
    with serving(now=lambda: time.time() + 10) as service:
        assert failed(checks(service)) == []


# What is shown


def test_a_missing_package(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing package is shown but fails no check by itself."""
    monkeypatch.setattr(doctor, "PACKAGES", ("ci-live-audit", "no-such-package"))
    found = checks(service)
    assert found["versions"][1].endswith(", no-such-package missing")


@pytest.mark.parametrize("key", ["secretexample", "wrongexample"])
@pytest.mark.parametrize("output", ["table", "json"])
def test_no_secret_is_shown(service: Service, key: str, output: str) -> None:
    """No secret is printed or logged, whether or not the key is accepted."""
    service.emulator.credentials = Credentials("AKIDEXAMPLE", "secretexample", "tokenexample")
    environ = {"TENCENTCLOUD_SECRET_KEY": key, "TENCENTCLOUD_TOKEN": "tokenexample"}
    result = service.start("-vv", "doctor", "-o", output, **environ)
    assert result.returncode == (key != "secretexample")
    assert ", attempt 1: " in result.stderr
    for text in (result.stdout, result.stderr):
        assert "secretexample" not in text
        assert "wrongexample" not in text
        assert "tokenexample" not in text
        assert "q-signature" not in text


def test_without_any_setting() -> None:
    """Without any setting, doctor says what is missing."""
    result = run("doctor", "-o", "table")
    assert result.exit_code == 1
    assert re.search(r"(?m)^ok   versions: ", result.stdout)
    assert re.search(r"(?m)^FAIL settings: bucket: pass --bucket", result.stdout)


@pytest.mark.parametrize("wrapped", ['"{}"', "${{{}}}", "{} "])
def test_keys_that_were_copied_wrongly(service: Service, wrapped: str) -> None:
    """Quotes, placeholders and blanks are found before the service refuses the signature."""
    key = wrapped.format("canary")
    good, text = checks(service, TENCENTCLOUD_SECRET_KEY=key)["credentials"]
    assert not good
    assert "TENCENTCLOUD_SECRET_KEY: secret_key: expected" in text
    assert "canary" not in text


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_certificates_that_are_not_there(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    """A variable that names no certificates is a failed check, not the end of the command."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "none"))
    found = checks(service, "--endpoint", "https://127.0.0.1:1")
    assert failed(found) == ["network"]
    assert found["network"][1].startswith(f"{variable}: no certificates")


# The way of the client


@contextlib.contextmanager
def proxy(to: str, refusal: bytes | None = None) -> Iterator[tuple[str, Proxy]]:
    """Serve a proxy whose tunnels lead to an address; give its own address."""
    tunnels = Proxy(to, refusal)
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(servers.serving(tunnels)) as door,
    ):
        yield door.url.removeprefix("http://"), tunnels


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.LeafCert:
    """Return a certificate for a host that no name server knows, and trust its authority."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return authority.issue_cert("ci.example.test")


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_proxy_is_used_and_named(
    service: Service,
    certificate: trustme.LeafCert,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    """Where only a proxy knows the host, all is well, and the proxy's password is not shown."""
    with (
        responding(refusal(404, "AuditingJobNotFound"), certificate) as address,
        proxy(address) as (door, tunnels),
    ):
        monkeypatch.setenv(variable, f"http://user:canary@{door}")
        found = checks(service, "--endpoint", "https://ci.example.test")
    assert failed(found) == []
    assert re.fullmatch(
        rf"ci\.example\.test TLSv1\.[23]; through the proxy http://{door} \({variable}\); "
        rf"certificates of {tmp_path}/ca\.pem \(SSL_CERT_FILE\)",
        found["network"][1],
    )
    assert "canary" not in str(found)
    assert {head.split(b"\r\n")[0] for head in tunnels.heads} == {
        b"CONNECT ci.example.test:443 HTTP/1.1"
    }


@pytest.mark.parametrize(
    "answer", ["407 Proxy Authentication Required", "403 Forbidden", "502 Bad Gateway"]
)
def test_a_proxy_that_refuses(
    service: Service, certificate: trustme.LeafCert, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    """What the proxy says is shown, and which one it is."""
    with proxy("127.0.0.1:1", f"HTTP/1.1 {answer}\r\n\r\n".encode()) as (door, _):
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:canary@{door}")
        found = checks(service, "--endpoint", "https://ci.example.test")
    assert failed(found) == ["network"]
    assert answer[:3] in found["network"][1]
    assert f"through the proxy http://{door} (HTTPS_PROXY); " in found["network"][1]
    assert "canary" not in str(found)


def test_a_proxy_that_is_down(
    service: Service, certificate: trustme.LeafCert, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy is named, and the host."""
    with closed_port() as door:
        monkeypatch.setenv("HTTPS_PROXY", door)
        found = checks(service, "--endpoint", "https://ci.example.test")
    assert failed(found) == ["network"]
    assert "cannot reach ci.example.test:443 through the proxy " in found["network"][1]
    assert f"; through the proxy {door} (HTTPS_PROXY); " in found["network"][1]


def test_a_proxy_that_cannot_be_used(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its variable is named, and its password is not shown."""
    monkeypatch.setenv("HTTPS_PROXY", "htp:/user:canary@proxy.example")
    found = checks(service, "--endpoint", "https://ci.example.test")
    assert failed(found) == ["network"]
    assert "(HTTPS_PROXY): expected http" in found["network"][1]
    assert "canary" not in str(found)


def test_a_host_that_needs_no_proxy(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host on this machine is reached directly, whatever the environment names."""
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    found = checks(service)
    assert failed(found) == []
    assert found["network"][1] == "127.0.0.1"


def test_a_proxy_without_tls(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without TLS is reached through its proxy, which is named."""
    with responding(refusal(404, "AuditingJobNotFound")) as address:
        monkeypatch.setenv("HTTP_PROXY", address)
        found = checks(service, "--endpoint", "http://ci.example.test", "--allow-http")
    assert failed(found) == []
    assert (
        found["network"][1] == f"ci.example.test; through the proxy http://{address} (HTTP_PROXY)"
    )
