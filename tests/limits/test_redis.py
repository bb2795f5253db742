"""The limiter over a real Redis: lanes, cancellation, outages, wrong use."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_py
from daemons import RedisServer
from redis import exceptions
from redis.asyncio import Redis, RedisCluster
from servers import eventually

from ci_live_audit import ConfigurationError, RateLimiter, TransportError
from ci_live_audit._redis import RedisRefused, RedisUnavailable, Script, Server, _fault
from ci_live_audit.limits.background import BackgroundRateLimiter
from ci_live_audit.limits.claim import keys
from ci_live_audit.limits.lanes import CALLS
from ci_live_audit.redis import RedisRateLimiter

#: A response may take this long on a busy machine.
PATIENT = 30.0
numbers = itertools.count()


@pytest.fixture
def anyio_backend() -> str:
    """Real time, by which callers and the server agree."""
    return "asyncio"


@pytest.fixture
def name() -> str:
    """Return the name of a quota that nobody else uses."""
    return f"test {next(numbers)}"


@pytest.fixture
def server(own_redis: RedisServer) -> Iterator[Any]:
    """Give a client of a server that a test may stop."""
    with redis_py.Redis.from_url(own_redis.url) as client:
        yield client


def limiter_of(server: RedisServer, name: str = "ci", **options: Any) -> RedisRateLimiter:
    """Return a limiter that is patient with a busy machine."""
    return RedisRateLimiter(server.url, name, **{"rate": 1000, "timeout": PATIENT, **options})


async def away(limiter: RedisRateLimiter, task: asyncio.Future[Any] | None = None) -> None:
    """Wait until the limiter has seen that Redis is away."""
    assert await eventually(lambda: limiter.degraded, seconds=PATIENT)
    assert task is None or not task.done()


async def back(limiter: RedisRateLimiter) -> None:
    """Wait until the limiter has seen that Redis is back."""
    assert await eventually(lambda: not limiter.degraded, seconds=PATIENT)


# Slots


async def test_processes_take_turns(redis: RedisServer, name: str) -> None:
    """Two limiters of one name share the rate evenly, whoever came first."""
    order: list[str] = []

    async def take(limiter: RedisRateLimiter, who: str) -> None:
        for _ in range(10):
            await limiter.acquire()
            order.append(who)

    async with limiter_of(redis, name, rate=100) as one, limiter_of(redis, name, rate=100) as two:
        assert isinstance(one, RateLimiter)
        assert one.pace == 100
        await asyncio.gather(one.acquire(), two.acquire())
        await asyncio.gather(*(take(one, "1") for _ in range(2)), *(take(two, "2") for _ in (1, 2)))
        assert (one.processes, two.processes) == (2, 2)
        assert (one.pace, one.degraded, one.waiting) == (100, False, 0)
    assert 5 <= order[:20].count("1") <= 15
    assert len(order) == 40


async def test_a_call_goes_before_bulk(own_redis: RedisServer) -> None:
    """A slot that was claimed for bulk work goes to a call that has come meanwhile."""
    order: list[str] = []

    async def take(who: str) -> None:
        await (limiter.acquire_background() if who == "bulk" else limiter.acquire())
        order.append(who)

    async with limiter_of(own_redis) as limiter:
        await limiter.acquire()
        own_redis.pause()
        bulk = [asyncio.create_task(take("bulk")) for _ in range(2)]
        await asyncio.sleep(0.01)
        calls = [asyncio.create_task(take("call")) for _ in range(2)]
        await asyncio.sleep(0)
        own_redis.resume()
        await asyncio.gather(*bulk, *calls)
    assert order == ["call", "call", "bulk", "bulk"]


async def test_polling_waits_in_the_lane_of_bulk(redis: RedisServer, name: str) -> None:
    """The limiter of polling tells its work from calls, if the one below can."""
    async with limiter_of(redis, name) as limiter:
        polling = BackgroundRateLimiter(limiter)
        for _ in range(3):
            await polling.acquire()
        assert polling.requests == 3
        with redis_py.Redis.from_url(redis.url) as client:
            me = limiter._claimant._me.encode()
            assert client.zrange(keys(name)[2], 0, -1) == [me + b":1"]


async def test_a_hold_is_for_all(redis: RedisServer, name: str) -> None:
    """A hold of one process is one of all, and the shorter of two changes nothing."""
    async with limiter_of(redis, name) as one, limiter_of(redis, name) as two:
        await asyncio.gather(one.acquire(), two.acquire())
        soon = asyncio.get_running_loop().time() + 30
        one.hold(60)
        one.hold(1)
        held: list[asyncio.Task[float]] = []
        for limiter in (one, two):
            held.append(asyncio.create_task(limiter.acquire()))
            claimant = limiter._claimant
            while claimant._shared_hold <= soon:
                await asyncio.sleep(0.01)
        assert not any(task.done() for task in held)
        for task in held:
            task.cancel()
        await asyncio.wait(held)


async def test_a_refusal_slows_all_down(redis: RedisServer, name: str) -> None:
    """The pace that a refusal leaves is that of all processes."""
    async with limiter_of(redis, name) as one, limiter_of(redis, name) as two:
        while one.pace == 1000:  # all within a second, unless the machine stands still
            await asyncio.gather(*(limiter.acquire() for limiter in (one, two) for _ in range(5)))
            one.refused(0.0)
            await one.acquire()
        await two.acquire()
        assert two.pace < 1000


async def test_the_lowest_rate_holds(
    redis: RedisServer, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Processes that disagree about the rate are told, and none goes above the lowest."""
    async with limiter_of(redis, name) as one, limiter_of(redis, name, rate=500) as two:
        await two.acquire()
        assert caplog.records == []
        await one.acquire()
        assert one.pace == 500
    (record,) = caplog.records
    assert record.getMessage() == (
        f"another process shares the quota '{name}' at 500 requests a second; that holds for all"
    )


async def test_nothing_is_lost_with_the_scripts(server: Any, own_redis: RedisServer) -> None:
    """A server that has forgotten scripts, or everything, is told again."""
    async with limiter_of(own_redis) as limiter:
        await limiter.acquire()
        server.script_flush()
        await limiter.acquire()
        server.flushall()
        await limiter.acquire()
        assert await eventually(lambda: server.hlen(keys("ci")[4]) == 1)
        assert not limiter.degraded


async def test_an_idle_connection_that_was_closed_is_no_outage(
    server: Any, own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that closes connections is asked again on a new one."""
    async with limiter_of(own_redis) as limiter:
        await limiter.acquire()
        for client in server.client_list():
            if client["cmd"] != "client|list":
                server.client_kill_filter(client["id"])
        await limiter.acquire()
    assert caplog.records == []


# Cancellation


async def test_a_cancelled_caller_costs_no_slot(redis: RedisServer, name: str) -> None:
    """Of many callers half are cancelled at any time, and the others pass."""
    async with limiter_of(redis, name) as limiter:
        tasks = [asyncio.create_task(limiter.acquire()) for _ in range(100)]
        for task in tasks[::2]:
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not any(task.cancelled() for task in tasks[1::2])
        assert limiter.waiting == 0


async def test_a_slot_goes_to_the_next_if_its_caller_is_cancelled(
    own_redis: RedisServer,
) -> None:
    """A caller that is cancelled in the very step in which it passes leaves its slot to another."""
    async with limiter_of(own_redis, outage="wait") as limiter:
        await limiter.acquire()
        own_redis.pause()
        first, second = (asyncio.create_task(limiter.acquire()) for _ in range(2))
        await asyncio.sleep(0)
        limiter._lanes.grant(CALLS, "slot")
        first.cancel()
        await asyncio.wait([first, second])
        assert first.cancelled()
        assert not second.cancelled()
        own_redis.resume()


async def test_a_slot_that_nobody_wants_is_given_back(server: Any, own_redis: RedisServer) -> None:
    """A grant that arrives after its caller was cancelled is taken out of the log."""
    async with limiter_of(own_redis) as limiter:
        await limiter.acquire()
        own_redis.pause()
        task = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        own_redis.resume()
        assert await eventually(lambda: limiter._claimant._slots > 2)
        assert await eventually(lambda: server.zcard(keys("ci")[1]) == 1)


async def test_a_grant_that_crosses_a_refusal_is_not_used(
    server: Any, own_redis: RedisServer
) -> None:
    """After a refusal nobody passes on a slot that was claimed before."""
    async with limiter_of(own_redis) as limiter:
        await limiter.acquire()
        own_redis.pause()
        task = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(0.01)
        limiter.refused(0.2)
        own_redis.resume()
        assert await eventually(lambda: limiter._claimant._shared_hold > 0)
        assert not task.done()
        assert await task > 0.1


# Outages


async def test_a_share_of_the_rate_passes_while_redis_is_away(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Processes go on at their shares, say so once, and return."""
    async with limiter_of(own_redis) as one, limiter_of(own_redis) as two:
        await asyncio.gather(one.acquire(), two.acquire())
        while one.processes != 2:
            await one.acquire()
        own_redis.stop()
        await asyncio.gather(*(one.acquire() for _ in range(10)))
        assert one.degraded
        assert await asyncio.to_thread(lambda: one.pace) == pytest.approx(475)
        own_redis.start()
        await back(one)
        assert one._claimant.held_until > 0
        await one.acquire()
    assert [record.levelno for record in caplog.records][:2] == [logging.WARNING] * 2
    texts = [record.getMessage() for record in caplog.records]
    assert texts[0].startswith(f"Redis at {own_redis.folder}/redis, which keeps the quota: ")
    assert texts[0].endswith("; until it is back, this process sends 475 requests a second")
    assert texts[-1].startswith(f"Redis at {own_redis.folder}/redis is back after ")


async def test_a_server_that_stands_still_is_not_waited_for(own_redis: RedisServer) -> None:
    """Each grant would cost a timeout if the limiter went on asking first."""
    async with limiter_of(own_redis, timeout=0.05) as limiter:
        own_redis.pause()
        for _ in range(20):
            await limiter.acquire()
        assert limiter.degraded
        assert limiter._fault == "no response within 0.05 s"
        own_redis.resume()
        limiter._server.timeout = PATIENT
        await back(limiter)
        await limiter.acquire()


async def test_redis_may_be_away_from_the_start(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """As long as nobody knows how many share, four are assumed, or as many as were passed."""
    own_redis.stop()
    async with limiter_of(own_redis) as limiter, limiter_of(own_redis, processes=10) as other:
        await asyncio.gather(limiter.acquire(), other.acquire())
        assert limiter.pace == pytest.approx(237.5)
        assert other.pace == pytest.approx(95)


async def test_a_refusal_during_an_outage_slows_this_process_down(own_redis: RedisServer) -> None:
    """It pauses and sends less, whether the refusal came before Redis went or after."""
    async with limiter_of(own_redis, outage="share") as limiter:
        await limiter.acquire()
        own_redis.stop()
        limiter.refused(0.0)
        task = asyncio.create_task(limiter.acquire())
        await away(limiter, task)
        slow = limiter.pace
        assert slow < 950
        assert limiter._claimant.held_until > asyncio.get_running_loop().time()
        limiter.refused(0.0)
        assert limiter.pace < slow
        task.cancel()
        await asyncio.wait([task])


async def test_nobody_passes_while_redis_is_away(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The strict choice waits."""
    async with limiter_of(own_redis, outage="wait") as limiter:
        await limiter.acquire()
        own_redis.stop()
        task = asyncio.create_task(limiter.acquire())
        await away(limiter, task)
        await asyncio.sleep(0.05)
        assert limiter.pace == 0
        assert not task.done()
        own_redis.start()
        await task
    assert "until it is back, nobody passes" in caplog.text


async def test_callers_get_an_error_while_redis_is_away(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is one that a call may be repeated after, since nothing was sent."""
    async with limiter_of(own_redis, outage="error") as limiter:
        await limiter.acquire()
        own_redis.stop()
        for _ in range(2):
            with pytest.raises(
                TransportError, match=r"Redis at .*, which keeps the quota"
            ) as found:
                await limiter.acquire()
            assert (found.value.transient, found.value.may_have_happened) == (True, False)
        own_redis.start()
        await back(limiter)
        await limiter.acquire()
    assert "until it is back, every call is an error" in caplog.text


async def test_a_claim_that_was_too_late_is_repeated(own_redis: RedisServer) -> None:
    """If the clock of the server is put forward, the next claim is by the new one."""
    async with limiter_of(own_redis) as limiter:
        await limiter.acquire()
        limiter._claimant.ahead -= 1000
        await limiter.acquire()
        own_redis.stop()
        await limiter.acquire()
        assert limiter.degraded
        limiter._claimant.ahead -= 1000
        limiter._server.timeout = PATIENT
        own_redis.start()
        await back(limiter)
        await limiter.acquire()


# Refusals by Redis


ALLOW = r"allow this user \+@scripting \+@read \+@write \+time and the keys ci_live_audit:\*"


def forbid(server: Any) -> None:
    server.execute_command("ACL", "SETUSER", "default", "-eval", "-evalsha")


def allow(server: Any) -> None:
    server.execute_command("ACL", "SETUSER", "default", "+eval", "+evalsha")


REFUSALS: dict[str, tuple[Any, Any, str]] = {
    "a password": (
        lambda server: server.config_set("requirepass", "secret"),
        lambda server: server.config_set("requirepass", ""),
        "check the user and the password",
    ),
    "permissions": (forbid, allow, ALLOW),
    "permissions inside": (
        lambda server: server.execute_command("ACL", "SETUSER", "default", "-time"),
        lambda server: server.execute_command("ACL", "SETUSER", "default", "+time"),
        ALLOW,
    ),
    "a replica": (
        lambda server: server.replicaof("127.0.0.1", "1"),
        lambda server: server.replicaof("NO", "ONE"),
        "this is a replica; pass the address of the master",
    ),
    "other keys": (
        lambda server: server.set(keys("ci")[0], "something else"),
        lambda server: server.delete(keys("ci")[0]),
        "keys of another name",
    ),
}


@pytest.mark.parametrize("kind", REFUSALS)
async def test_what_redis_refuses_at_first_is_an_error(
    server: Any, own_redis: RedisServer, kind: str
) -> None:
    """It says what to do; if that is done, the same limiter works."""
    server.ping()
    refuse, accept, hint = REFUSALS[kind]
    refuse(server)
    async with limiter_of(own_redis) as limiter:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=hint) as found:
                await limiter.acquire()
            assert str(found.value).startswith(f"Redis at {own_redis.folder}/redis: ")
        accept(server)
        await limiter.acquire()
        assert not limiter.degraded


async def test_what_redis_refuses_later_is_an_outage(server: Any, own_redis: RedisServer) -> None:
    """A service that runs goes on."""
    async with limiter_of(own_redis) as limiter:
        await limiter.acquire()
        forbid(server)
        await limiter.acquire()
        assert limiter.degraded
        assert "NoPermissionError" in limiter._fault
        allow(server)
        await back(limiter)


async def test_a_full_server_is_an_outage(server: Any, own_redis: RedisServer) -> None:
    """What passes is no mistake of a setting, even at first."""
    server.config_set("maxmemory", "1")
    async with limiter_of(own_redis) as limiter:
        await limiter.acquire()
        assert limiter.degraded
        assert "maxmemory" in limiter._fault


# Use


@pytest.mark.parametrize("options", [{}, {"decode_responses": True}, {"protocol": 3}])
async def test_a_client_that_was_given_stays_open(
    redis: RedisServer, name: str, options: dict[str, Any]
) -> None:
    """A client with any options serves, also beside other commands, and is its owner's."""
    async with Redis.from_url(redis.url, **options) as client:
        async with RedisRateLimiter(client, name, 1000, timeout=PATIENT) as limiter:
            await asyncio.gather(*(limiter.acquire() for _ in range(5)), client.ping())
        assert await client.ping()
        assert await client.hlen(keys(name)[4]) == 0


async def test_closing_ends_all_who_wait(redis: RedisServer, name: str) -> None:
    """They get an error, as does whoever comes later; closing twice does no harm."""
    limiter = limiter_of(redis, name, rate=1)
    await limiter.acquire()
    task = asyncio.create_task(limiter.acquire())
    await asyncio.sleep(0)
    assert limiter.waiting == 1
    await limiter.aclose()
    await limiter.aclose()
    with pytest.raises(ConfigurationError, match="the limiter was closed"):
        await task
    with pytest.raises(ConfigurationError, match="the limiter is closed"):
        await limiter.acquire()


async def test_a_caller_cancelled_as_the_limiter_closes(redis: RedisServer, name: str) -> None:
    """Nothing is logged about an error that nobody gets."""
    limiter = limiter_of(redis, name, rate=1)
    await limiter.acquire()
    task = asyncio.create_task(limiter.acquire())
    await asyncio.sleep(0)
    limiter._lanes.fail(lambda: ConfigurationError("closed"))
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await limiter.aclose()


async def test_a_cancellation_that_is_lost_ends_the_dispatcher(
    redis: RedisServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a command returns although it was cancelled, the limiter closes all the same."""
    limiter = limiter_of(redis, name)
    await limiter.acquire()
    run, running = limiter._server.run, asyncio.Event()

    async def lose(*arguments: Any) -> list[int]:
        running.set()
        try:
            await asyncio.sleep(PATIENT)
        except asyncio.CancelledError:
            return await run(*arguments)
        raise AssertionError

    monkeypatch.setattr(limiter._server, "run", lose)
    task = asyncio.create_task(limiter.acquire())
    await running.wait()
    monkeypatch.undo()
    await limiter.aclose()
    with pytest.raises(ConfigurationError, match="closed"):
        await task


async def test_a_limiter_that_was_not_used_closes(redis: RedisServer) -> None:
    """Nothing was opened, and nothing is."""
    limiter = limiter_of(redis)
    await limiter.aclose()
    with pytest.raises(ConfigurationError, match="closed"):
        await limiter.acquire()


@pytest.mark.parametrize("timeout", [0.05, PATIENT])
async def test_closing_does_not_wait_for_redis(
    own_redis: RedisServer, timeout: float, caplog: pytest.LogCaptureFixture
) -> None:
    """If it is away, a limiter closes all the same."""
    limiter = limiter_of(own_redis)
    await limiter.acquire()
    limiter._server.timeout = timeout
    if timeout == PATIENT:
        own_redis.stop()
        await limiter.acquire()
        assert limiter.degraded
    else:
        own_redis.pause()
        caplog.set_level(logging.DEBUG)
    await limiter.aclose()
    assert ("was not told that this ends" in caplog.text) is (timeout < 1)


def test_the_end_of_the_loop_closes_a_limiter(redis: RedisServer, name: str) -> None:
    """Who forgets to close it leaves no connection and no place in the queue."""

    async def use() -> RedisRateLimiter:
        limiter = limiter_of(redis, name)
        await limiter.acquire()
        return limiter

    limiter = asyncio.run(use())
    with redis_py.Redis.from_url(redis.url) as client:
        assert client.hlen(keys(name)[4]) == 0

    async def use_again() -> None:
        with pytest.raises(ConfigurationError, match="another event loop"):
            await limiter.acquire()
        await limiter.aclose()

    asyncio.run(use_again())


async def test_another_loop_is_refused(redis: RedisServer, name: str) -> None:
    """As long as the limiter is in use, another loop can neither take slots nor close it."""
    async with limiter_of(redis, name) as limiter:
        await limiter.acquire()

        def elsewhere() -> None:
            for use in (limiter.acquire, limiter.aclose):
                with pytest.raises(ConfigurationError, match="another event loop"):
                    asyncio.run(use())

        await asyncio.to_thread(elsewhere)
        await limiter.acquire()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_children_that_are_forked_are_processes_of_their_own(redis: RedisServer, name: str) -> None:
    """A limiter that was made before a fork is counted in each child."""
    code = f"""if True:
        import asyncio, os, sys
        from ci_live_audit.redis import RedisRateLimiter
        limiter = RedisRateLimiter({redis.url!r}, {name!r}, 1000, timeout=30)
        child = os.fork()
        async def main():
            async with limiter:
                await limiter.acquire()
                if child:
                    return await asyncio.to_thread(os.waitpid, child, 0)
                while limiter.processes != 2:
                    await limiter.acquire()
        ended = asyncio.run(main())
        if child:
            sys.exit(os.waitstatus_to_exitcode(ended[1]))
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=50)


class NotSynchronous:
    """Is no client."""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"redis": redis_py.Redis()}, "a client of redis.asyncio, got redis.client.Redis"),
        ({"redis": NotSynchronous()}, "got .*NotSynchronous"),
        ({"redis": None}, "got builtins.NoneType"),
        ({"redis": ""}, "expected a URL"),
        ({"redis": "http://localhost"}, "expected a URL"),
        ({"redis": "redis://localhost:many"}, "expected a URL"),
        ({"redis": "redis://localhost?socket_timeout=x"}, "expected a URL"),
        ({"redis": "redis://localhost?colour=red"}, "expected a URL"),
        ({"rate": 0}, "rate: expected requests a second"),
        ({"rate": float("inf")}, "rate: expected requests a second"),
        ({"rate": "20"}, "rate: expected requests a second"),
        ({"name": ""}, "name: expected a text"),
        ({"name": 5}, "name: expected a text"),
        ({"name": "a{b}"}, "name: expected a text without braces"),
        ({"outage": "ignore"}, 'outage: expected "share", "wait" or "error"'),
        ({"timeout": 0}, "timeout: expected seconds"),
        ({"processes": 0}, "processes: expected a number"),
        ({"processes": 1.5}, "processes: expected a number"),
    ],
)
def test_a_bad_argument_is_named(options: dict[str, Any], message: str) -> None:
    """What cannot be used is refused when the limiter is made."""
    with pytest.raises(ConfigurationError, match=message):
        RedisRateLimiter(**{"redis": "redis://localhost", **options})


def test_redis_py_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the error says what to install."""
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(ConfigurationError, match=r"pip install .ci-live-audit\[redis\]"):
        RedisRateLimiter("redis://localhost")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rate": 0},
        {"redis": "redis://user:pa55word@localhost:port"},
        {"redis": "redis://user:pa55word@localhost?colour=red"},
        {"redis": "http://user:pa55word@localhost"},
    ],
)
async def test_a_password_is_nowhere(
    options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """It is in no text of the limiter, no error, no traceback with locals, and no log."""
    caplog.set_level(logging.DEBUG)
    texts = [""]
    given = {"redis": "redis://user:pa55word@127.0.0.1:1/0", "outage": "error", **options}
    try:
        limiter = RedisRateLimiter(**given)
        texts = [repr(limiter), str(limiter)]
        async with limiter:
            await limiter.acquire()
    except (ConfigurationError, TransportError) as error:
        shown = traceback.TracebackException.from_exception(error, capture_locals=True)
        del shown.stack[0]  # this test knows it
        texts += [str(error), repr(error), "".join(shown.format())]
        assert "pa55word" in given["redis"]
    assert "pa55word" not in "\n".join([*texts, caplog.text])


# The server


async def test_calls_may_be_made_at_once(redis: RedisServer) -> None:
    """Each has the response to itself."""
    server = Server(redis.url, PATIENT)
    echo = Script("return {tonumber(ARGV[1]), tonumber(ARGV[2])}")
    calls = [server.run(echo, ["ci_live_audit:{x}"], number) for number in range(20)]
    assert await asyncio.gather(*calls) == [[number] for number in range(20)]
    await server.aclose()


async def test_a_response_to_something_else_is_not_taken(redis: RedisServer) -> None:
    """The connection is in doubt then, and closed."""
    server = Server(redis.url, PATIENT)
    with pytest.raises(RedisUnavailable, match="the response is to another command"):
        await server.run(Script("return {0}"), ["key"])
    assert await server.run(Script("return {tonumber(ARGV[1]), 5}"), ["key"]) == [5]
    await server.aclose()


async def test_a_command_has_its_time(own_redis: RedisServer) -> None:
    """A command that is not answered, or refused, is a fault."""
    server = Server(own_redis.url, PATIENT)
    assert await server.command("PING") is not None
    with pytest.raises(RedisUnavailable, match="unknown command"):
        await server.command("NOTHING")
    own_redis.pause()
    server.timeout = 0.01
    with pytest.raises(RedisUnavailable, match=r"no response within 0.01 s"):
        await server.command("PING")
    own_redis.resume()
    await server.aclose()


async def test_places_are_named_without_credentials() -> None:
    """Where a server is, is said of all kinds of clients."""
    cluster = RedisCluster(host="127.0.0.1", port=1)
    server = Server(cluster, PATIENT)
    assert server.place == "the cluster"
    await server._drop()  # it closes what it has by itself
    await cluster.aclose()
    sentinel = redis_py.asyncio.Sentinel([("127.0.0.1", 1)])  # type: ignore[no-untyped-call]
    master = sentinel.master_for("mymaster")
    assert Server(master, PATIENT).place == "the master mymaster"
    await master.aclose()
    assert Server("rediss://user:word@host", PATIENT).place == "host:6379"


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (exceptions.ResponseError("Protocol error: unauthenticated multibulk length"), True),
        (exceptions.ResponseError("unknown command 'EVALSHA'"), True),
        (exceptions.ResponseError("MISCONF Redis is configured to save RDB snapshots"), False),
        (exceptions.ClusterDownError("The cluster is down"), False),
        (exceptions.BusyLoadingError("Redis is loading the dataset in memory"), False),
        (exceptions.ConnectionError("refused"), False),
        (RuntimeError("of another loop"), False),
    ],
)
def test_what_is_wrong_is_told_from_what_passes(error: Exception, refused: bool) -> None:
    """A server that starts, or has no room at the moment, is away; others refuse."""
    assert isinstance(_fault(error), RedisRefused) is refused
