"""What is promised of callbacks that arrive: who may send them, and what each is answered."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import io
import json
import logging
import pickle
import random
import threading
import traceback
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import rich.traceback
from clocks import now, run_virtual
from posted import PROBE, SECRET, Post, Taken, body, detail, path_for
from proofs import times

from ci_live_audit import CallbackReceiver, ConfigurationError
from ci_live_audit.callbacks import Callback
from ci_live_audit.testing.serving import serve
from ci_live_audit.wire.documents import LARGE_BODY

KEY = "canary/key+0f1e2d3c4b5a69788796"


async def test_forged_tokens_are_refused_unread() -> None:
    """Tokens of other secrets, other streams, changed and cut ones are 404, and nobody hears."""
    chance = random.Random(16)
    taken, heard = Taken(), Taken()
    receiver = CallbackReceiver([SECRET, SECRET[::-1]], on_callback=taken.add)
    receiver.subscribe(heard.append)
    genuine = [path_for(receiver, name) for name in ("room7", None)]
    forgers = [CallbackReceiver(chance.randbytes(32)) for _ in range(10)]
    forged: set[str] = set()
    while len(forged) < times(1000):
        changed = list(chance.choice(genuine).rpartition("/")[2])
        at = chance.randrange(64)
        changed[at] = chance.choice([one for one in "0123456789abcdef" if one != changed[at]])
        other = chance.choice(genuine).rpartition("/")[2]
        forged |= {
            "".join(changed),
            "".join(changed)[:32] + other[32:],
            chance.randbytes(32).hex(),
            chance.randbytes(chance.randrange(40)).hex(),
            path_for(chance.choice(forgers)).rpartition("/")[2],
        }
    for token in forged - {path.rpartition("/")[2] for path in genuine}:
        exchange = Post(f"/hooks/{token}", [body()])
        assert (await exchange.to(receiver), exchange.reads) == (404, 0)
        assert receiver.take(exchange.path, None, body()) == 404
    await receiver.join()
    assert (taken, heard) == ([], [])
    assert set(receiver.counts) - {"refused"} == {
        name for name, count in receiver.counts.items() if not count
    }


def damaged(chance: random.Random) -> bytes:
    """Return a body of one of many kinds, mostly broken."""
    kind = chance.randrange(6)
    if kind == 0:
        return chance.randbytes(chance.randrange(200))
    data = bytearray(chance.choice([body(), body(data_id=None), detail("av1", 3)]))
    if kind == 1:
        return bytes(data[: chance.randrange(len(data))])
    if kind == 2:
        for _ in range(chance.randrange(1, 20)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        return bytes(data)
    if kind == 3:
        document: Any = json.loads(data)
        inside = document.get("data") or document["JobsDetail"]
        values: list[Any] = [
            None,
            {},
            [],
            "",
            0,
            -1.5,
            True,
            "x",
            [{}],
            {"a": [1]},
            10**30,
            "\ud800",
            [["a"]],
        ]
        for name in chance.sample([*inside], 2):
            inside[name] = chance.choice(values)
        return json.dumps(document).encode()
    if kind == 4:
        return chance.choice([b"[", b'{"data":', b'{"JobsDetail":{"a":']) * chance.randrange(1, 999)
    return b"<Response><JobsDetail><JobId>av1</JobId>" + bytes(data)


def test_any_body_has_an_answer() -> None:
    """Whatever is posted to a genuine URL is taken or refused, and never an exception."""
    chance = random.Random(16)
    receiver = CallbackReceiver(SECRET)
    paths = [path_for(receiver, name) for name in ("room7", None)]
    headers = [None, {}, {"X-Ci-Content-Version": "Simple"}, {"x-ci-content-version": "\0"}]
    statuses = [
        receiver.take(chance.choice(paths), chance.choice(headers), damaged(chance))
        for _ in range(times(10_000))
    ]
    assert set(statuses) == {200, 404}
    counts = receiver.counts
    assert all(counts[name] for name in ("taken", "duplicate", "refused", "unreadable"))
    assert sum(counts.values()) == len(statuses)


async def test_a_busy_consumer_delays_no_answer() -> None:
    """While it works for hours, callbacks are taken at once and wait for it in their order."""
    taken = Taken()

    async def slow(callback: Callback) -> None:
        await asyncio.sleep(3600)
        taken.append(callback)
        raise ValueError("no")

    receiver = CallbackReceiver(SECRET, on_callback=slow)
    for number in range(20):
        assert await Post(path_for(receiver), [body(f"av{number}")]).to(receiver) == 200
    assert now() < 0.001
    await receiver.join()
    assert taken.ids == [f"av{number}" for number in range(20)]


@pytest.mark.waits
def test_a_blocked_consumer_delays_no_answer() -> None:
    """A plain function that blocks for ever delays no answer of a server."""
    taken, go_on = Taken(), threading.Event()

    def block(callback: Callback) -> None:
        taken.append(callback)
        go_on.wait()

    receiver = CallbackReceiver(SECRET, on_callback=block)

    async def main() -> None:
        async with serve(receiver, "127.0.0.1", 0) as url, httpx.AsyncClient() as http:
            to = receiver.url(url, "room7")
            for number in range(5):
                answer = await http.post(to, content=body(f"av{number}"))
                assert answer.status_code == 200
            assert len(taken) <= 1
            go_on.set()

    asyncio.run(main())
    asyncio.run(receiver.join())
    assert set(taken.ids) == {f"av{number}" for number in range(5)}


def test_leaving_at_any_instant_leaves_nothing() -> None:
    """Whichever step of an exchange is cancelled, no place and no task stays behind."""
    data = detail("av1", 600)
    assert len(data) > LARGE_BODY

    async def leave(step: int) -> bool:
        receiver = CallbackReceiver(SECRET, on_callback=Taken().add, at_once=1)
        path = path_for(receiver)
        exchange = Post(path, [data[at : at + 40_000] for at in range(0, len(data), 30_000)])
        task = asyncio.create_task(exchange.to(receiver))
        for _ in range(step):
            await asyncio.sleep(0)
        has_ended = task.done()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert not receiver._intake.reading
        assert await Post(path, [data]).to(receiver) == 200
        await receiver.join()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return has_ended

    ends = [run_virtual(lambda step=step: leave(step)) for step in range(25)]  # type: ignore[misc]
    assert not ends[0]


def shown(error: BaseException) -> str:
    """Return a traceback with the locals of the frames that are not this file's."""
    frames = error.__traceback__
    while frames and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    by_python = traceback.TracebackException(type(error), error, frames, capture_locals=True)
    assert frames is not None
    by_rich = rich.traceback.Traceback.extract(type(error), error, frames, show_locals=True)
    nodes = [frame.locals for stack in by_rich.stacks for frame in stack.frames]
    return "".join(by_python.format()) + repr(nodes)


def test_the_secret_is_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    """No channel shows the secret of a receiver, nor half of it."""
    caplog.set_level(1)
    handler = logging.StreamHandler(io.StringIO())
    logging.getLogger().addHandler(handler)
    texts: list[str] = []

    def raising(call: Callable[[], Any]) -> None:
        with pytest.raises((ConfigurationError, TypeError, ValueError)) as caught:
            call()
        texts.extend([str(caught.value), repr(caught.value), shown(caught.value)])

    secret: Any
    for secret in (KEY, KEY.encode(), [KEY, KEY.encode()]):
        receiver: Any = CallbackReceiver(secret, on_callback=lambda _: 1 / 0)
        raising(lambda: pickle.dumps(receiver))  # noqa: B023
        raising(lambda: copy.deepcopy(receiver))  # noqa: B023
        raising(lambda: receiver.url("nowhere", "room7"))  # noqa: B023
        raising(lambda: receiver.url("https://example.com", "\ud800"))  # noqa: B023
        raising(lambda: receiver.take(path_for(receiver), None, 7))  # noqa: B023
        path = path_for(receiver)
        assert [receiver.take(path, None, data) for data in (body(), b"{", PROBE)] == 3 * [200]
        asyncio.run(receiver.join())
        parts = [
            vars(receiver),
            vars(receiver._tokens),
            [vars(key) for key in receiver._tokens._keys],
        ]
        texts += [repr(receiver), str(receiver), repr(parts), receiver.url("https://a.b", "room7")]
    CallbackReceiver(KEY[:15])  # with a warning
    bad: Any
    for bad in ([KEY, ""], [KEY, None], {KEY: KEY}):
        raising(lambda: CallbackReceiver(bad))  # noqa: B023
        raising(lambda: CallbackReceiver(bad, on_callback=print))  # noqa: B023
        raising(lambda: CallbackReceiver(KEY, max_body=0))
    logging.getLogger().removeHandler(handler)
    text = "\n".join([*texts, caplog.text, handler.stream.getvalue()])
    assert "on_callback failed" in text
    assert "a callback cannot be read" in text
    for part in (KEY[:10], KEY[-10:], KEY.encode().hex()[:20]):
        assert part not in text
