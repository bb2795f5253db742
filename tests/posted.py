"""Callbacks as the service posts them, and a receiver to post them to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import attrs

from ci_live_audit import CallbackReceiver
from ci_live_audit.callbacks import Callback

SECRET = "a secret of more than 16 bytes"
PROBE = json.dumps(
    {"code": 0, "message": "Test request when setting callback url", "data": {"trace_id": "x"}}
).encode()


def body(job_id: str = "av1", data_id: str | None = "room7", **more: Any) -> bytes:
    """Return the body of a Simple callback."""
    data = {"event": "ReviewVideo", "trace_id": job_id, "result": 1, **more}
    if data_id is not None:
        data["data_id"] = data_id
    return json.dumps({"code": 0, "message": "success", "data": data}).encode()


def path_for(receiver: CallbackReceiver, data_id: str | None = "room7") -> str:
    """Return the path of the URL for a stream."""
    return urlsplit(receiver.url("https://example.com/hooks", data_id)).path


def detail(job_id: str, count: int) -> bytes:
    """Return the body of a Detail callback with so many snapshots, each of some 100 bytes."""
    frames = [{"Url": "https://example.com/" + 60 * "x", "SnapshotTime": at} for at in range(count)]
    details = {"JobId": job_id, "DataId": "room7", "State": "Auditing", "Snapshot": frames}
    return json.dumps({"EventName": "ReviewVideo", "JobsDetail": details}).encode()


@attrs.define
class Post:
    """A request to an ASGI application, in this process.

    Attributes:
        pieces: Those of its body. After the last one nothing comes, or the end of the connection.
        reads: How often the application has asked for more.
        sent: What it has sent.
    """

    path: str
    pieces: Sequence[bytes] = (b"",)
    method: str = "POST"
    headers: Sequence[tuple[bytes, bytes]] = ()
    is_whole: bool = True
    breaks: bool = False
    pause: float = 0.0
    reads: int = 0
    sent: list[Any] = attrs.field(factory=list[Any])

    async def to(self, app: Any) -> int | None:
        """Send it; return the status, or None if there was no response."""
        scope = {
            "type": "http",
            "method": self.method,
            "path": self.path,
            "headers": self.headers,
        }
        await app(scope, self._receive, self._send)
        return self.sent[0]["status"] if self.sent else None

    async def _receive(self) -> dict[str, Any]:
        at = self.reads
        self.reads += 1
        await asyncio.sleep(self.pause)
        if at < len(self.pieces):
            more = at + 1 < len(self.pieces) or not self.is_whole
            return {"type": "http.request", "body": self.pieces[at], "more_body": more}
        if not self.breaks:
            await asyncio.get_running_loop().create_future()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.sent.append(message)


async def post(receiver: CallbackReceiver, data: bytes, data_id: str | None = "room7") -> int:
    """Post a body to the URL for a stream, and return the status."""
    status = await Post(path_for(receiver, data_id), [data]).to(receiver)
    assert status is not None
    return status


class Taken(list[Callback]):
    """What a consumer was called with."""

    async def add(self, callback: Callback) -> None:
        """Take a callback."""
        self.append(callback)

    @property
    def ids(self) -> list[str | None]:
        """The jobs, in the order in which they came."""
        return [callback.job_id for callback in self]
