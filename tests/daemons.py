"""Servers of the system's packages, each in processes of its own on a port of this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from hashlib import md5
from pathlib import Path
from typing import Any, Self

import attrs
import pytest
import trustme

__all__ = [
    "HERE",
    "PROXIES",
    "Authority",
    "Daemon",
    "RedisServer",
    "free_port",
    "nginx",
    "redis_server",
]

#: This machine, by an address that is not the loopback's: for that, no client asks a proxy.
HERE = "0.0.0.0"
SECONDS = 20.0
PATH = "/usr/local/sbin:/usr/sbin:/usr/lib/squid:/usr/lib64/squid:/usr/libexec/squid"
ROOT = os.geteuid() == 0
#: Where a squid that is killed leaves its shared memory.
SHARED = Path("/dev/shm")


@attrs.define
class Daemon:
    """A server that runs until it is stopped; its ``password`` is that of ``user``."""

    command: list[str]
    port: int
    folder: Path
    password: str = ""
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        output = self.folder / "output.log"
        with output.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        until = time.monotonic() + SECONDS
        while not self.listens():
            if self.process.poll() is not None or time.monotonic() > until:
                pytest.fail(f"{self.command[0]} did not start: {output.read_text('utf-8')}")
            time.sleep(0.02)

    def listens(self) -> bool:
        """Return whether it accepts connections."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        """Kill it with all its processes: its connections are cut, too."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(SECONDS)
        for left in SHARED.glob(f"squid{self.port}-*"):
            left.unlink()

    def reload(self) -> None:
        """Tell it to read its settings again."""
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def log(self) -> list[str]:
        """Return what it has logged of its requests."""
        return (self.folder / "access.log").read_text("utf-8").splitlines()

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        """Run it until the context ends."""
        try:
            self.start()
            yield self
        finally:
            self.stop()


def program(name: str, package: str = "") -> str:
    """Return the path of a program; skip the test if the system lacks it."""
    path = shutil.which(name, path=f"{os.environ['PATH']}:{PATH}")
    if path is None:
        pytest.skip(f"needs {name}: apt-get install {package or name}")
    return path


def free_port() -> int:
    """Return a port on which nothing listens at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Authority:
    """A certificate authority that clients find in the environment, and its certificate files."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        ca = trustme.CA()
        issued = ca.issue_cert("127.0.0.1", HERE)
        self.certificate, self.key, self.file = (folder / name for name in ("cert", "key", "ca"))
        for blob in issued.cert_chain_pems:
            blob.write_to_path(str(self.certificate), append=True)
        issued.private_key_pem.write_to_path(str(self.key))
        ca.cert_pem.write_to_path(str(self.file))
        monkeypatch.setenv("SSL_CERT_FILE", str(self.file))

    def context(self) -> ssl.SSLContext:
        """Return a context that trusts it, for clients that do not look at the environment."""
        return ssl.create_default_context(cafile=str(self.file))


def nginx(folder: Path, authority: Authority, upstream: str, **settings: str) -> Daemon:
    """Return an nginx with TLS in front of a server.

    Args:
        folder: Its own.
        authority: Who issued its certificate.
        upstream: URL of the server.
        settings: Directives, by ``http`` block, ``server`` and ``location``.
    """
    path, port = program("nginx"), free_port()
    folder.mkdir()
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"""
{"user root root;" if ROOT else ""}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 512; }}
http {{
    {temporary}
    log_format calls "$request_method $uri $status $sent_http_content_encoding";
    access_log {folder}/access.log calls;
    {settings.get("http", "")}
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {authority.certificate};
        ssl_certificate_key {authority.key};
        {settings.get("server", "")}
        location / {{
            proxy_pass {upstream};
            proxy_http_version 1.1;
            proxy_set_header Host {settings.get("host", "$http_host")};
            {settings.get("location", "")}
        }}
    }}
}}
""",
        "utf-8",
    )
    return Daemon([path, "-e", "stderr", "-p", str(folder), "-c", str(config)], port, folder)


def squid(folder: Path, *, login: bool = False, rules: str = "http_access allow all") -> Daemon:
    """Return a squid, which wants a name and a password or follows other rules.

    Whoever it becomes must reach the folder.
    """
    path, port, password = program("squid"), free_port(), "proxy password/:%"
    folder.mkdir()
    folder.chmod(0o777)  # it gives up being root
    if login:
        passwords = folder / "passwords"
        passwords.write_text(f"user:{md5(password.encode()).hexdigest()}\n", "utf-8")
        rules = f"""
auth_param basic program {program("basic_ncsa_auth", "squid")} {passwords}
acl known proxy_auth REQUIRED
http_access allow known
http_access deny all"""
    config = folder / "squid.conf"
    config.write_text(
        f"""
http_port 127.0.0.1:{port}
pid_filename none
netdb_filename none
pinger_enable off
cache deny all
cache_log {folder}/cache.log
access_log stdio:{folder}/access.log
buffered_logs off
logfile_rotate 0
visible_hostname proxy.test
max_filedescriptors 1024
{rules}
""",
        "utf-8",
    )
    return Daemon([path, "-N", "-n", f"squid{port}", "-f", str(config)], port, folder, password)


def tinyproxy(folder: Path, *, login: bool = False, rules: str = "") -> Daemon:
    """Return a tinyproxy, which wants a name and a password or follows other rules."""
    path, port, password = program("tinyproxy"), free_port(), "proxy-password"
    folder.mkdir()
    if login:
        rules = f"BasicAuth user {password}"
    config = folder / "tinyproxy.conf"
    config.write_text(
        f"""
Port {port}
Listen 127.0.0.1
Timeout 60
LogFile "{folder}/access.log"
LogLevel Connect
{rules}
""",
        "utf-8",
    )
    return Daemon([path, "-d", "-c", str(config)], port, folder, password)


@attrs.define
class RedisServer(Daemon):
    """A redis-server with a socket in its folder, so that no two ever want one port."""

    @property
    def url(self) -> str:
        """Where it is."""
        return f"unix://{self.folder}/redis"

    def listens(self) -> bool:
        """Return whether it accepts connections."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(f"{self.folder}/redis") == 0

    def pause(self) -> None:
        """Stop it without ending it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


def redis_server(folder: Path, *options: str, port: int = 0) -> RedisServer:
    """Return a redis-server that keeps nothing on the disk."""
    command = [program("redis-server"), "--dir", str(folder), "--unixsocket", f"{folder}/redis"]
    command += ["--port", str(port), "--save", "", *options]
    return RedisServer(command, port, folder)


PROXIES: dict[str, Any] = {"squid": squid, "tinyproxy": tinyproxy}
