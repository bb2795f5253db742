"""A shared quota over the ways in which a Redis is run: with TLS, as a cluster, behind Sentinel."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import redis as redis_py
from daemons import Authority, Daemon, free_port, program, redis_server
from redis.asyncio import RedisCluster
from redis.asyncio.sentinel import Sentinel
from servers import eventually

from ci_live_audit.redis import RedisRateLimiter

pytestmark = pytest.mark.real

HOST = "127.0.0.1"
PATIENT = 30.0


@pytest.fixture
def anyio_backend() -> str:
    """Real time, by which callers and servers agree."""
    return "asyncio"


async def test_a_server_with_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL with rediss:// and the file of its authority is enough."""
    authority = Authority(tmp_path, monkeypatch)
    port = free_port()
    tls = ["--tls-port", str(port), "--tls-auth-clients", "no"]
    tls += ["--tls-cert-file", str(authority.certificate), "--tls-key-file", str(authority.key)]
    tls += ["--tls-ca-cert-file", str(authority.file)]
    url = f"rediss://{HOST}:{port}?ssl_ca_certs={authority.file}"
    with TemporaryDirectory() as folder, redis_server(Path(folder), *tls).running():
        async with RedisRateLimiter(url, rate=1000, timeout=PATIENT) as limiter:
            await asyncio.gather(*(limiter.acquire() for _ in range(20)))
            assert not limiter.degraded


async def test_a_cluster() -> None:
    """All keys of a quota are in one slot, so that a script may use them."""
    port, bus = free_port(), free_port()
    options = ("--cluster-enabled", "yes", "--cluster-port", str(bus))
    with TemporaryDirectory() as folder, redis_server(Path(folder), *options, port=port).running():
        with redis_py.Redis(port=port) as node:
            node.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
            assert await eventually(
                lambda: node.cluster("info")["cluster_state"] == "ok", seconds=PATIENT
            )
        async with RedisCluster(host=HOST, port=port) as client:
            async with RedisRateLimiter(client, rate=1000, timeout=PATIENT) as limiter:
                await asyncio.gather(*(limiter.acquire() for _ in range(20)))
                assert not limiter.degraded
            assert await client.ping()


async def test_a_master_that_fails_over() -> None:
    """The limiter goes on while Sentinel makes a replica the master, and over that one then."""
    with (
        TemporaryDirectory() as one,
        TemporaryDirectory() as two,
        TemporaryDirectory() as three,
        redis_server(Path(one), port=free_port()).running() as master,
        redis_server(
            Path(two), "--replicaof", HOST, str(master.port), port=free_port()
        ).running() as replica,
        redis_py.Redis(port=replica.port) as follower,
    ):
        assert await eventually(
            lambda: follower.info("replication")["master_link_status"] == "up", seconds=PATIENT
        )
        config, port = Path(three, "sentinel.conf"), free_port()
        config.write_text(
            f"port {port}\n"
            f"sentinel monitor quota {HOST} {master.port} 1\n"
            "sentinel down-after-milliseconds quota 500\n"
            "sentinel failover-timeout quota 2000\n",
            "utf-8",
        )
        command = [program("redis-server"), str(config), "--sentinel"]
        with Daemon(command, port, Path(three)).running():
            with redis_py.Redis(port=port) as watcher:
                assert await eventually(
                    lambda: watcher.sentinel_slaves("quota") != [], seconds=PATIENT
                )
            sentinel = Sentinel([(HOST, port)])  # type: ignore[no-untyped-call]
            async with (
                sentinel.master_for("quota") as client,
                RedisRateLimiter(client, rate=1000) as limiter,
            ):
                await limiter.acquire()
                assert await eventually(lambda: follower.dbsize() > 0, seconds=PATIENT)
                master.stop()
                await asyncio.gather(*(limiter.acquire() for _ in range(50)))
                limiter._server.timeout = PATIENT
                assert await eventually(
                    lambda: follower.info("replication")["role"] == "master", seconds=PATIENT
                )
                assert await eventually(lambda: not limiter.degraded, seconds=PATIENT)
                await limiter.acquire()
            for other in sentinel.sentinels:
                await other.aclose()
