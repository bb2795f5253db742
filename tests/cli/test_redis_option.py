"""`--redis`: commands of several processes share the rate, and doctor checks the server."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import redis as redis_py
from command_line import Service, parsed, serving
from daemons import RedisServer

from ci_live_audit.cli import doctor
from ci_live_audit.cli.output import Output
from ci_live_audit.cli.session import Settings
from ci_live_audit.limits.claim import keys


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as service:
        yield service


def check(service: Service, url: str) -> tuple[bool, str]:
    """Run doctor, and return whether Redis is good, and what is said of it."""
    found = {one["name"]: one for one in parsed(service.run("doctor", "--redis", url))}
    assert list(found)[:2] == ["versions", "redis"]
    return found["redis"]["good"], found["redis"]["text"]


def test_a_command_takes_its_slots_from_redis(service: Service, redis: RedisServer) -> None:
    """A query passes through the quota that the URL names, and leaves nobody there."""
    job_id = service.emulator.add_job(duration=1)
    with redis_py.Redis.from_url(redis.url) as client:
        client.delete(*keys("ci"))
        result = service.run("query", job_id, "--redis", redis.url)
        assert (result.exit_code, result.stderr) == (0, "")
        assert client.zcard(keys("ci")[1]) == 1
        assert client.hlen(keys("ci")[4]) == 0


def test_the_url_may_come_from_the_environment(service: Service, redis: RedisServer) -> None:
    """So that nobody reads a password from the list of processes."""
    job_id = service.emulator.add_job(duration=1)
    with redis_py.Redis.from_url(redis.url) as client:
        client.delete(*keys("ci"))
        service.run("query", job_id, CI_LIVE_AUDIT_REDIS=redis.url)
        assert client.zcard(keys("ci")[1]) == 1


def test_an_outage_is_told_once(service: Service) -> None:
    """A command goes on at its share of the rate, and says so."""
    job_id = service.emulator.add_job(duration=1)
    result = service.run("query", job_id, job_id, "--redis", "unix:///nowhere/redis")
    assert result.exit_code == 0
    (line,) = result.stderr.splitlines()
    assert line.startswith("warning: Redis at /nowhere/redis, which keeps the quota: ")
    assert line.endswith("; until it is back, this process sends 238 requests a second")


@pytest.mark.parametrize("url", ["localhost:6379", "redis://user:pa55word@localhost:x"])
def test_a_bad_url_is_one_error(service: Service, url: str) -> None:
    """It is named, but not shown."""
    result = service.run("query", "av0123", "--redis", url)
    assert result.exit_code == 2
    assert "Error: redis: expected a URL redis://" in result.stderr
    assert url not in result.stderr


def test_settings_do_not_show_the_url() -> None:
    """It may hold a password."""
    settings = Settings(
        bucket=None,
        region=None,
        endpoint=None,
        allow_http=False,
        rate=20,
        timeout=30,
        attempts=4,
        redis="redis://:pa55word@localhost",
        output=Output("json"),
    )
    assert "pa55word" not in repr(settings)


def test_doctor_finds_redis_well(service: Service, redis: RedisServer) -> None:
    """Its version, whether it keeps its data, and how fast it responds."""
    good, text = check(service, redis.url)
    assert re.fullmatch(
        rf"Redis \d+\.\d+\.\d+ at {redis.folder}/redis; appendonly no; round trip \d+\.\d ms.*",
        text,
    )
    assert good is ("nearer" not in text)


def test_doctor_finds_redis_far_away(
    service: Service, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too slow a round trip is not good."""
    monkeypatch.setattr(doctor, "LATE", 1e-9)
    good, text = check(service, redis.url)
    assert not good
    assert text.endswith("; over 0 ms, processes nearer to it go before")


def test_doctor_finds_redis_missing(service: Service) -> None:
    """One that is not there, or a URL that is none, is named, and the other checks go on."""
    good, text = check(service, "unix:///nowhere/redis")
    assert not good
    assert text.startswith("/nowhere/redis: ConnectionError: ")
    good, text = check(service, "nowhere")
    assert not good
    assert text.startswith("redis: expected a URL redis://")


def test_doctor_finds_what_redis_forbids(service: Service, own_redis: RedisServer) -> None:
    """A user that may not run scripts is told what to allow."""
    with redis_py.Redis.from_url(own_redis.url) as client:
        client.execute_command("ACL", "SETUSER", "default", "-eval", "-evalsha")
    good, text = check(service, own_redis.url)
    assert not good
    assert "allow this user +@scripting +@read +@write +time and the keys ci_live_audit:*" in text


def test_doctor_needs_no_more_than_the_limiter(service: Service, own_redis: RedisServer) -> None:
    """A user that may do what the manual says is enough, and INFO is not part of it."""
    rules = "~ci_live_audit:* -@all +@connection +@scripting +@read +@write +time"
    with redis_py.Redis.from_url(own_redis.url) as client:
        client.execute_command("ACL", "SETUSER", "default", "resetkeys", *rules.split())
    good, text = check(service, own_redis.url)
    assert good, text
    assert "its version and appendonly may not be asked for; round trip" in text
