"""The receiver as an ASGI application: bounds, statuses, and clients that leave."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from clocks import now
from posted import SECRET, Post, Taken, body, detail, path_for

from ci_live_audit import CallbackReceiver
from ci_live_audit.callbacks import Callback, asgi
from ci_live_audit.callbacks import decode as decode_callback
from ci_live_audit.wire.documents import LARGE_BODY

WRONG = "/hooks/" + 64 * "0"


async def test_a_body_comes_in_pieces() -> None:
    """However it is cut, the callback is the same."""
    taken = Taken()
    receiver = CallbackReceiver(SECRET, on_callback=taken.add)
    path, data = path_for(receiver), body()
    for size in (1, 7, len(data)):
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        for whole in (pieces, [b"", *pieces, b"", b""]):
            exchange = Post(path, whole)
            assert await exchange.to(receiver) == 200
            assert exchange.reads == len(whole)
    await receiver.join()
    assert taken == [decode_callback(data)]


async def test_a_message_may_leave_everything_out() -> None:
    """A request without headers and without a body is one that cannot be read."""
    receiver = CallbackReceiver(SECRET)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path_for(receiver)}
    await receiver(scope, receive, send)
    assert sent[0]["status"] == 200
    assert receiver.counts["unreadable"] == 1


@pytest.mark.parametrize("path", ["", "/", "/hooks", WRONG, WRONG[:-1], WRONG + "0", WRONG + "/x"])
async def test_a_wrong_path_reads_nothing(path: str) -> None:
    """Without a genuine token no byte of a body is read."""
    receiver = CallbackReceiver(SECRET)
    exchange = Post(path, [body()])
    assert (await exchange.to(receiver), exchange.reads) == (404, 0)
    assert receiver.counts["refused"] == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "get", "X"])
async def test_another_method_is_refused(method: str) -> None:
    """It is told what is allowed, whatever the path."""
    receiver = CallbackReceiver(SECRET)
    for path in (path_for(receiver), "/"):
        exchange = Post(path, [body()], method)
        assert (await exchange.to(receiver), exchange.reads) == (405, 0)
        assert (b"allow", b"POST") in exchange.sent[0]["headers"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"content-length", b"1001")], 413),
        ([(b"content-length", 5000 * b"9")], 413),
        ([(b"Content-Length", b"1001")], 413),
        ([(b"content-encoding", b"gzip")], 415),
        ([(b"content-encoding", b"br, gzip")], 415),
        ([(b"content-encoding", b" Identity ")], 200),
        ([(b"content-length", b"-1")], 200),
        ([(b"content-length", "\u00b2".encode("latin-1"))], 200),
        ([(b"content-length", b"1000")], 200),
    ],
)
async def test_headers_that_are_refused(headers: Any, status: int) -> None:
    """A body that is too large or compressed is refused before it is read."""
    receiver = CallbackReceiver(SECRET, max_body=1000)
    exchange = Post(path_for(receiver), [body()], headers=headers)
    assert await exchange.to(receiver) == status
    assert exchange.reads == (status == 200)


async def test_a_body_that_grows_too_large_is_not_read_on() -> None:
    """An endless body ends at the bound."""
    receiver = CallbackReceiver(SECRET, max_body=1000)
    exchange = Post(path_for(receiver), 100 * [100 * b"x"], is_whole=False)
    assert (await exchange.to(receiver), exchange.reads) == (413, 11)
    assert receiver.take(path_for(receiver), None, 1001 * b" ") == 413
    assert receiver.counts["refused"] == 2


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    """A slow or silent client is given up after the timeout, and its place is free."""
    receiver = CallbackReceiver(SECRET, timeout=5, at_once=1)
    path = path_for(receiver)
    for pieces, pause in (([], 0.0), ([b"{"], 0.0), (20 * [b"{"], 1.0)):
        began = now()
        assert await Post(path, pieces, is_whole=False, pause=pause).to(receiver) == 408
        assert now() - began == pytest.approx(5, abs=0.01)
    assert await Post(path, [body()]).to(receiver) == 200


async def test_too_many_at_once_are_sent_away() -> None:
    """Of more than may be read at once, the others come again later."""
    receiver = CallbackReceiver(SECRET, at_once=3)
    path = path_for(receiver)
    posts = [Post(path, [body(f"av{number}")], pause=1) for number in range(5)]
    statuses = await asyncio.gather(*(one.to(receiver) for one in posts))
    assert sorted(map(str, statuses)) == ["200", "200", "200", "503", "503"]
    assert [one.reads for one in posts] == [1, 1, 1, 0, 0]
    assert await Post(WRONG).to(receiver) == 404
    assert receiver.counts["busy"] == 2
    assert await Post(path, [body("av9")]).to(receiver) == 200


async def test_a_client_that_leaves_costs_nothing() -> None:
    """Nothing is answered, taken or counted, and its place is free."""
    receiver = CallbackReceiver(SECRET, at_once=1)
    path = path_for(receiver)
    for pieces in ([], [b"{"], [body()]):
        exchange = Post(path, pieces, is_whole=False, breaks=True)
        assert await exchange.to(receiver) is None
    assert not any(receiver.counts.values())
    assert await Post(path, [body()]).to(receiver) == 200


async def test_large_bodies_are_decoded_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes long is not done on the loop."""
    where: dict[int, bool] = {}

    def decode(data: bytes, headers: Any) -> Callback:
        where[len(data)] = threading.current_thread() is threading.main_thread()
        return decode_callback(data)

    monkeypatch.setattr(asgi, "read", decode)
    receiver = CallbackReceiver(SECRET)
    small, large = detail("av1", 10), detail("av1", 1000)
    assert len(small) <= LARGE_BODY < len(large)
    for data in (small, large, large):
        assert await Post(path_for(receiver), [data]).to(receiver) == 200
    assert where == {len(small): True, len(large): False}
    assert receiver.counts["taken"] == 2
    assert receiver.counts["duplicate"] == 1


async def test_without_threads_large_bodies_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no more threads, the sender is asked to come again."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    receiver = CallbackReceiver(SECRET)
    exchange = Post(path_for(receiver), [detail("av1", 1000)])
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert await exchange.to(receiver) == 503
    assert receiver.counts["busy"] == 1
    assert await Post(path_for(receiver), [detail("av1", 1000)]).to(receiver) == 200


class Lifespan:
    """What a server says to an application, and what it hears."""

    def __init__(self, *kinds: str) -> None:
        self.kinds = list(kinds)
        self.sent: list[str] = []

    async def receive(self) -> dict[str, str]:
        return {"type": self.kinds.pop(0)}

    async def send(self, message: Any) -> None:
        self.sent.append(message["type"])


async def test_the_lifespan_ends_when_callbacks_are_handed_over() -> None:
    """What was answered 200 is not lost when the server stops; afterwards all goes on."""
    taken = Taken()

    async def slow(callback: Callback) -> None:
        await asyncio.sleep(1)
        taken.append(callback)

    receiver = CallbackReceiver(SECRET, on_callback=slow)
    for round_ in range(2):
        for number in range(3):
            await Post(path_for(receiver), [body(f"av{round_}{number}")]).to(receiver)
        server = Lifespan("lifespan.startup", "lifespan.shutdown")
        await receiver({"type": "lifespan"}, server.receive, server.send)
        assert server.sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert len(taken) == 3 * (round_ + 1)


async def test_the_lifespan_does_not_wait_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    """A consumer that does not come to an end is told in the log."""
    receiver = CallbackReceiver(SECRET, on_callback=lambda _: asyncio.sleep(1000), timeout=5)
    await Post(path_for(receiver), [body()]).to(receiver)
    server = Lifespan("lifespan.startup", "lifespan.shutdown")
    await receiver({"type": "lifespan"}, server.receive, server.send)
    assert server.sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert now() == pytest.approx(5, abs=0.1)
    assert caplog.messages == ["on_callback is too slow to end within 5 s"]


async def test_the_lifespan_without_a_consumer() -> None:
    """Nothing is waited for."""
    server = Lifespan("lifespan.startup", "lifespan.shutdown")
    await CallbackReceiver(SECRET)({"type": "lifespan"}, server.receive, server.send)
    assert server.sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_other_scopes_are_refused() -> None:
    """A websocket is closed before it opens; what no server knows yet is an error."""
    receiver = CallbackReceiver(SECRET)
    server = Lifespan("websocket.connect")
    await receiver({"type": "websocket", "path": "/"}, server.receive, server.send)
    assert server.sent == ["websocket.close"]
    with pytest.raises(ValueError, match="expected a scope of http, websocket or lifespan"):
        await receiver({"type": "webtransport"}, server.receive, server.send)
