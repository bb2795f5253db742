"""Stands in for the service: responses of any size, and a server that sends them.

The server is a process of its own, so that all CPU time of the measuring process is the client's.
It checks nothing and sends the same response to every request, because the client is measured and
not the emulator.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import attrs

from ci_live_audit.credentials.values import Credentials
from ci_live_audit.models import (
    AudioSection,
    AuditJob,
    HitFlag,
    JobState,
    LibResult,
    Location,
    ObjectResult,
    OcrResult,
    ReadOnly,
    Scene,
    Snapshot,
    Verdict,
)
from ci_live_audit.testing.render import render

__all__ = [
    "BUCKET",
    "CHINESE",
    "CREDENTIALS",
    "ENGLISH",
    "FAULTS",
    "JOB_ID",
    "REGION",
    "Texts",
    "answer",
    "serving",
]

BUCKET, REGION = "examplebucket-1250000000", "ap-beijing"
CREDENTIALS = Credentials("AKIDEXAMPLE", "secretexample")
JOB_ID = "av0123456789abcdef0123456789abcdef"
SCENES = ("Porn", "Ads", "Terrorism", "Politics")
BEGAN = datetime(2026, 8, 7, 12, 12, 12, tzinfo=timezone(timedelta(hours=8)))


# Responses


@attrs.frozen
class Texts:
    """What was read in snapshots, and what was said."""

    read: str
    said: str


ENGLISH = Texts(
    "add me: x < 7", "What was said here, for as long as it takes to say some twenty words or so."
)
CHINESE = Texts(
    "加我微信：x < 7 & y > 3",  # noqa: RUF001
    "主播说了大约二十个词的话，欢迎来到直播间，点击下方链接领取优惠，谢谢大家的支持。",  # noqa: RUF001
)


def answer(count: int, texts: Texts = ENGLISH) -> bytes:
    """Return a job with so many snapshots and audio sections, a tenth of them with hits."""
    began = int(BEGAN.timestamp() * 1000)
    summary = {name: Scene(hit_flag=HitFlag.HIT, count=-(-count // 10)) for name in SCENES[:2]}
    job = AuditJob(
        job_id=JOB_ID,
        state=JobState.AUDITING,
        creation_time=BEGAN,
        type="live_video",
        url="rtmp://live.example.com/app/room7",
        label="Porn",
        result=Verdict.SENSITIVE,
        snapshot_count=count,
        scenes=ReadOnly(summary),
        snapshots=tuple(_snapshot(number, began, texts) for number in range(count)),
        audio_sections=tuple(_section(number, began, texts) for number in range(count)),
        request_id="NjI2ZjY2ZDBfMjAxNDQzMGFfMmQ1",
    )
    return render(job)


def _snapshot(number: int, began: int, texts: Texts) -> Snapshot:
    scenes, label, verdict, text = _clean(), "Normal", Verdict.NORMAL, None
    if number % 10 == 0:
        scenes, label, verdict, text = (
            scenes | _found(texts.read),
            "Porn",
            Verdict.SENSITIVE,
            texts.read,
        )
    return Snapshot(
        url=_signed(f"snapshot/{number}.jpg"),
        text=text,
        label=label,
        result=verdict,
        snapshot_time=began + 1000 * number,
        scenes=ReadOnly(scenes),
    )


def _clean() -> dict[str, Scene]:
    return {name: Scene(hit_flag=HitFlag.MISS, score=0, label="Normal") for name in SCENES}


def _found(text: str) -> dict[str, Scene]:
    where = Location(x=12.5, y=20, width=180, height=44, rotate=0)
    person = ObjectResult(name="person", sub_label="adult", keywords=("one",), location=where)
    read = OcrResult(text=text, keywords=("add", "me"), location=where)
    known = LibResult(image_id="5f3c9a", score=91, lib_type=2, lib_name="own library")
    porn = Scene(
        hit_flag=HitFlag.HIT,
        score=98,
        label="Porn",
        category="Sex",
        sub_label="SexBehavior",
        object_results=(person,),
        lib_results=(known,),
    )
    ads = Scene(hit_flag=HitFlag.SUSPECTED, score=75, label="QRCode", ocr_results=(read,))
    return {"Porn": porn, "Ads": ads}


def _section(number: int, began: int, texts: Texts) -> AudioSection:
    return AudioSection(
        url=_signed(f"audio/{number}.mp3"),
        text=texts.said,
        label="Normal",
        result=Verdict.NORMAL,
        offset_time=began + 1000 * number,
        duration=1000,
        scenes=ReadOnly(_clean()),
    )


def _signed(path: str) -> str:
    stamp = "1786076000;1786083200"
    return (
        f"https://{BUCKET}.cos.{REGION}.myqcloud.com/{JOB_ID}/{path}?q-sign-algorithm=sha1"
        f"&q-ak=AKIDEXAMPLE&q-sign-time={stamp}&q-key-time={stamp}&q-header-list=&q-url-param-list="
        "&q-signature=6f1ed002ab5595859014ebf0951522d9a1b2c3d4"
    )


# A server


@contextlib.contextmanager
def serving(body: bytes, delay: float = 0.0, faults: float = 0.0) -> Iterator[str]:
    """Serve a body, about ``delay`` seconds after each request; yield the URL.

    With ``faults``, each of `FAULTS` affects that share of the requests.
    """
    command = [sys.executable, __file__, str(delay), str(faults)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(body)
        process.stdin.close()
        try:
            yield process.stdout.readline().decode().strip()
        finally:
            process.terminate()


class _Serving(asyncio.Protocol):
    def __init__(self, body: bytes, delay: float) -> None:
        self._response = _whole("200 OK", body)
        self._delay = delay
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *requests, self._received = (self._received + data).split(b"\r\n\r\n")
        responses = b"".join(map(self._answer, requests))
        if self._delay:
            delay = self._delay * random.uniform(0.5, 1.5)
            asyncio.get_running_loop().call_later(delay, self._transport.write, responses)
        else:
            self._transport.write(responses)

    def _answer(self, request: bytes) -> bytes:
        """Return the response, about another job of the same length if that is requested."""
        job_id = request.split(b" ", 2)[1].rpartition(b"/")[2]
        known = JOB_ID.encode()
        if job_id == known or len(job_id) != len(known):
            return self._response
        return self._response.replace(known, job_id)


class _Faulty(_Serving):
    """Injects the faults, each into a share of the requests, by one seed for all connections."""

    rng = random.Random(1)

    def __init__(self, body: bytes, share: float) -> None:
        super().__init__(body, 0.0)
        self._share = share

    def data_received(self, data: bytes) -> None:
        at = int(self.rng.random() / self._share)
        if at >= len(FAULTS):
            super().data_received(data)
            return
        fault, half = FAULTS[at], len(self._response) // 2
        loop = asyncio.get_running_loop()
        if fault == "reset":
            linger = struct.pack("ii", 1, 0)
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._transport.abort()
        elif fault == "cut":
            self._transport.write(self._response[:half])
            self._transport.close()
        elif fault == "slow":
            self._transport.write(self._response[:half])
            loop.call_later(0.02, self._transport.write, self._response[half:])
        elif fault == "hang-up":
            self._transport.write(self._response)
            loop.call_later(0.001, self._transport.close)
        else:
            self._transport.write(_whole(*REFUSALS[fault]))


#: A hang-up closes the connection just after a response.
FAULTS = ("reset", "cut", "slow", "hang-up", "500", "429", "garbage")
REFUSALS = {
    "500": ("500 Internal Server Error", b"<Error><Code>InternalError</Code></Error>"),
    "429": ("429 Too Many Requests", b"<Error><Code>SlowDown</Code></Error>"),
    "garbage": ("200 OK", b"<html><title>Welcome to the hotel network</title>"),
}


def _whole(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\nx-ci-request-id: NjI2ZjY2\r\n\r\n" + body


async def _serve(body: bytes, delay: float, faults: float) -> None:
    loop = asyncio.get_running_loop()

    def connected() -> asyncio.Protocol:
        return _Faulty(body, faults) if faults else _Serving(body, delay)

    server = await loop.create_server(connected, "127.0.0.1", 0, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(sys.stdin.buffer.read(), float(sys.argv[1]), float(sys.argv[2])))
