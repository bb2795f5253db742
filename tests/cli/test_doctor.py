"""doctor: what is wrong is found, and named."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from command_line import Service, parsed, run, serving

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
    """What was checked, by name; the exit code fits to it, and nothing else is said."""
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


@contextlib.contextmanager
def answering(answer: bytes, certificate: trustme.LeafCert | None = None) -> Iterator[str]:
    """A server that answers everything with the same, and closes; its address."""
    context: ssl.SSLContext | None = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)

    def serve() -> None:
        with contextlib.suppress(OSError):  # it is shut down at the end
            while True:
                connection = listener.accept()[0]
                with contextlib.suppress(OSError):
                    if context is not None:
                        connection = context.wrap_socket(connection, server_side=True)
                    connection.recv(65536)
                    connection.sendall(answer)
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


def test_all_is_well(service: Service) -> None:
    """Each thing is checked, and says something useful."""
    found = checks(service)
    assert list(found) == NAMES
    assert failed(found) == []
    texts = {name: text for name, (_, text) in found.items()}
    assert re.match(r"Python 3\.\d+\.\d+, ci-live-audit \d", texts["versions"])
    assert "missing" not in texts["versions"]
    assert texts["settings"] == service.url
    assert texts["credentials"] == (
        "from the environment: TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY; without a token"
    )
    assert texts["network"] == "127.0.0.1"
    assert re.fullmatch(r"[+-]\d s against the service's", texts["clock"])


def test_for_people(service: Service) -> None:
    """A line for each, with a word that says whether it is well."""
    result = service.run("doctor", "-o", "table")
    assert (result.exit_code, result.stderr) == (0, "")
    assert [line[:4] for line in result.stdout.splitlines()] == ["ok  "] * 6
    result = service.run("doctor", "-o", "table", TENCENTCLOUD_SECRET_KEY="wrong")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].startswith("FAIL service: ")


def test_as_a_process(service: Service) -> None:
    """The same from a shell."""
    assert service.start("doctor").returncode == 0
    assert service.start("doctor", TENCENTCLOUD_SECRET_KEY="wrong").returncode == 1


@pytest.mark.parametrize("variable", ["CI_LIVE_AUDIT_BUCKET", "TENCENTCLOUD_REGION"])
def test_a_setting_that_is_missing(service: Service, variable: str) -> None:
    """It is named, and there is nothing to ask."""
    found = checks(service, **{variable: None})
    assert list(found) == ["versions", "settings"]
    assert failed(found) == ["settings"]
    assert variable in found["settings"][1]
    assert service.emulator.arrivals == []


def test_an_endpoint_that_is_none(service: Service) -> None:
    """It may hold a password, so it is not shown."""
    found = checks(service, "--endpoint", "https://user:hunter2@example.com")
    assert failed(found) == ["settings"]
    assert "hunter2" not in str(found)


def test_no_credentials(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """All places are named where they could have been."""

    def nowhere(*_: object) -> str:
        raise OSError("no route to it")

    monkeypatch.setattr(default_chain, "_fetch", nowhere)
    environ = dict.fromkeys(["TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY"])
    found = checks(service, **environ)
    assert list(found) == ["versions", "settings", "credentials"]
    assert failed(found) == ["credentials"]
    assert "TENCENTCLOUD_SECRET_ID" in found["credentials"][1]
    assert "no CVM role" in found["credentials"][1]


def test_half_of_the_credentials(service: Service) -> None:
    """The other half is named."""
    found = checks(service, TENCENTCLOUD_SECRET_KEY=None)
    assert failed(found) == ["credentials"]
    assert found["credentials"][1].startswith("TENCENTCLOUD_SECRET_KEY is missing")


def test_credentials_of_a_profile(service: Service, tmp_path: Path) -> None:
    """It is said where they come from, and whether there is a token."""
    service.emulator.credentials = Credentials("AKIDEXAMPLE", "secretexample", "tokenexample")
    path = tmp_path / ".tencentcloud" / "credentials"
    path.parent.mkdir()
    path.write_text(
        "[default]\nsecret_id = AKIDEXAMPLE\nsecret_key = secretexample\ntoken = tokenexample\n"
    )
    environ = dict.fromkeys(["TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY"])
    found = checks(service, **environ)
    assert failed(found) == []
    assert found["credentials"][1] == f"from {path}; with a token"


@pytest.mark.parametrize("name", ["ID", "KEY"])
def test_a_key_that_the_service_refuses(service: Service, name: str) -> None:
    """The service's own word is shown; the account's rights have nothing to do with it."""
    found = checks(service, **{f"TENCENTCLOUD_SECRET_{name}": "wrong"})
    assert failed(found) == ["service"]
    assert re.search(r"40[13] \w+", found["service"][1])
    assert "ci:DescribeAuditingJob" not in found["service"][1]


def test_an_account_that_may_not(service: Service) -> None:
    """It is said which right is needed."""
    with answering(refusal(403, "AccessDenied")) as address:
        found = checks(service, "--endpoint", f"http://{address}")
    assert failed(found) == ["service"]
    assert "403 AccessDenied" in found["service"][1]
    assert found["service"][1].endswith("; may this account do ci:DescribeAuditingJob?")


def test_a_service_that_is_out_of_order(service: Service) -> None:
    """What it answers is shown."""
    service.emulator.inject(Fault.error(503), operation="query")
    found = checks(service, "--attempts", "1")
    assert failed(found) == ["service"]
    assert "503 ServiceUnavailable" in found["service"][1]


def test_something_else_that_answers(service: Service) -> None:
    """A hotel's page is no service, and a date that is none no clock."""
    page = HEAD.format(200, 6, "Date: today\r\n").encode() + b"<html>"
    with answering(page) as address:
        found = checks(service, "--endpoint", f"http://{address}", "--attempts", "1")
    assert list(found) == [name for name in NAMES if name != "clock"]
    assert failed(found) == ["service"]


# The network


@pytest.mark.parametrize("name", ["nowhere.invalid", "a..b", "x" * 64 + ".example"])
def test_a_name_that_nobody_has(service: Service, name: str) -> None:
    """It is shown with what the resolver says."""
    found = checks(service, "--endpoint", f"https://{name}")
    assert list(found) == NAMES[:4]
    assert failed(found) == ["network"]
    assert found["network"][1].startswith(f"{name}: ")
    assert len(found["network"][1]) > len(name) + 10


def test_nobody_listens(service: Service) -> None:
    """The reason is shown."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{bound.getsockname()[1]}"
        found = checks(service, "--endpoint", endpoint)
    assert failed(found) == ["network"]
    assert "Connect call failed" in found["network"][1]


def test_nobody_answers(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is an end to patience."""
    monkeypatch.setattr(doctor, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        found = checks(service, "--endpoint", endpoint)
    assert failed(found) == ["network"]
    assert found["network"][1] == "127.0.0.1: no answer within 0.2 s"


@pytest.mark.parametrize(
    ("answer", "told"),
    [(b"", "it hangs up without an answer"), (b"x" * 200_000, "limit")],
)
def test_no_answer_that_is_one(service: Service, answer: bytes, told: str) -> None:
    """Somebody listens who is no web server."""
    with answering(answer) as address:
        found = checks(service, "--endpoint", f"http://{address}")
    assert failed(found) == ["network"]
    assert told in found["network"][1]


def test_a_certificate_that_is_not_trusted(service: Service) -> None:
    """It is said, and nothing is sent."""
    certificate = trustme.CA().issue_cert("127.0.0.1")
    with answering(refusal(404, "AuditingJobNotFound"), certificate) as address:
        found = checks(service, "--endpoint", f"https://{address}")
    assert list(found) == NAMES[:4]
    assert failed(found) == ["network"]
    assert "certificate verify failed" in found["network"][1]


def test_a_certificate_of_somebody_else(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name has to be that of the endpoint."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    certificate = authority.issue_cert("example.com")
    with answering(refusal(404, "AuditingJobNotFound"), certificate) as address:
        found = checks(service, "--endpoint", f"https://{address}")
    assert failed(found) == ["network"]
    assert "mismatch" in found["network"][1]


def test_a_certificate_that_is_trusted(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The protocol is shown, and the service is asked."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    certificate = authority.issue_cert("127.0.0.1")
    with answering(refusal(404, "AuditingJobNotFound"), certificate) as address:
        found = checks(service, "--endpoint", f"https://{address}")
    assert failed(found) == []
    assert re.fullmatch(r"127\.0\.0\.1 TLSv1\.[23]", found["network"][1])


# The clock


@pytest.mark.parametrize("ahead", [3600, -3600])
def test_a_clock_that_is_off(ahead: float) -> None:
    """It is said by how much and in which direction; the client can do with it."""
    with serving(now=lambda: time.time() + ahead) as service:
        found = checks(service)
    assert failed(found) == ["clock"]
    match = re.fullmatch(r"([+-]\d+) s against the service's", found["clock"][1])
    assert match
    assert abs(int(match[1]) + ahead) < 60
    assert found["service"] == (True, "it accepts these credentials")


def test_a_clock_that_is_off_a_little() -> None:
    """That much a signature stands."""
    with serving(now=lambda: time.time() + 10) as service:
        assert failed(checks(service)) == []


# What is shown


def test_a_package_that_is_missing(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said; whether that matters, the other checks tell."""
    monkeypatch.setattr(doctor, "PACKAGES", ("ci-live-audit", "no-such-package"))
    found = checks(service)
    assert found["versions"][1].endswith(", no-such-package missing")


@pytest.mark.parametrize("key", ["secretexample", "wrongexample"])
@pytest.mark.parametrize("output", ["table", "json"])
def test_no_secret_is_shown(service: Service, key: str, output: str) -> None:
    """Whatever is logged, and whether or not the key is accepted."""
    service.emulator.credentials = Credentials("AKIDEXAMPLE", "secretexample", "tokenexample")
    environ = {"TENCENTCLOUD_SECRET_KEY": key, "TENCENTCLOUD_TOKEN": "tokenexample"}
    result = service.start("-vv", "doctor", "-o", output, **environ)
    assert result.returncode == (key != "secretexample")
    assert "Attempt(" in result.stderr
    for text in (result.stdout, result.stderr):
        assert "secretexample" not in text
        assert "wrongexample" not in text
        assert "tokenexample" not in text
        assert "q-signature" not in text


def test_nothing_is_needed_to_ask_for_help() -> None:
    """Without any setting it still says what is missing."""
    result = run("doctor", "-o", "table")
    assert result.exit_code == 1
    assert re.search(r"(?m)^ok   versions: ", result.stdout)
    assert re.search(r"(?m)^FAIL settings: bucket: pass --bucket", result.stdout)
