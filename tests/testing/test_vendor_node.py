"""The vendor's SDK for Node against the emulator: a client of another language."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import anyio.to_thread
import attrs
import httpx
import pytest

from ci_live_audit import Credentials, JobState, LiveAuditClient, UserInfo
from ci_live_audit.testing import Emulator, Fault, frame, sound

SDK = "cos-nodejs-sdk-v5@3.0.0"
SCRIPT = Path(__file__).with_name("vendor_node.js")
LIVE = "rtmp://live.example.com/app/room7?a=1&b=2"
Process: TypeAlias = "subprocess.Popen[str]"
USER = {"TokenId": "t1", "Nickname": "Zoë <&>", "Room": "7", "IP": "10.0.0.7", "Level": "9"}


@pytest.fixture(scope="session")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Install the SDK once in a run and start it; skip where that is impossible."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("needs Node.js and npm")
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with (folder / "node.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        installed = folder / "node"
        if not installed.exists():
            part = folder / "node.part"
            command = [npm, "install", "--prefix", str(part), SDK, "--ignore-scripts"]
            command += ["--no-audit", "--no-fund", "--prefer-offline", "--fetch-retries=0"]
            try:
                subprocess.run(command, check=True, capture_output=True, timeout=30)
            except subprocess.SubprocessError:
                pytest.skip(f"npm cannot install {SDK} here")
            part.rename(installed)
    environ = {**os.environ, "NODE_PATH": str(installed / "node_modules")}
    with subprocess.Popen(
        [node, "--no-deprecation", str(SCRIPT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
    ) as process:
        yield process


@pytest.fixture
def anyio_backend() -> str:
    """Use real time, as the client and the server have separate event loops."""
    return "asyncio"


@pytest.fixture
def emulator() -> Emulator:
    return Emulator()


@pytest.fixture
async def url(emulator: Emulator) -> AsyncIterator[str]:
    async with emulator.serve() as url:
        yield url


@attrs.frozen
class Node:
    """The SDK in a process of its own; it calls the bucket's host at the emulator's address."""

    process: Process
    emulator: Emulator
    url: str

    async def run(
        self, *calls: dict[str, Any], credentials: Credentials | None = None
    ) -> tuple[list[dict[str, Any]], int]:
        """Make some calls; return their outcomes and the milliseconds its clock was corrected."""
        keys = credentials or self.emulator.credentials
        options = {
            "SecretId": keys.secret_id,
            "SecretKey": keys.secret_key,
            "SecurityToken": keys.token,
            "Ip": self.url.removeprefix("http://"),
            "CorrectClockSkew": True,
            "Timeout": 10_000,
        }
        place = {"Bucket": self.emulator.bucket, "Region": self.emulator.region}
        request = json.dumps({"options": options, "calls": [place | call for call in calls]})
        answer = json.loads(await anyio.to_thread.run_sync(self._exchange, request))
        return answer["outcomes"], answer["SystemClockOffset"]

    def _exchange(self, line: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(line, file=self.process.stdin, flush=True)
        return self.process.stdout.readline()

    async def data(self, call: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Make a call that succeeds, and return the job of its response."""
        (outcome,), _ = await self.run(call, **options)
        details: dict[str, Any] = outcome["data"]["Response"]["JobsDetail"]
        return details

    async def error(self, call: dict[str, Any], **options: Any) -> tuple[int, str]:
        """Make a call that is refused, and return status and code."""
        (outcome,), _ = await self.run(call, **options)
        return outcome["error"]["status"], outcome["error"]["code"]

    def call(self, method: str, key: str, body: object = None) -> dict[str, Any]:
        """Describe a call in the way of the vendor's own examples for live streams."""
        return {
            "method": "request",
            "Method": method,
            "Key": key,
            "Url": f"http://{self.emulator.host}/{key}",
            "body": body,
            "Headers": {"Content-Type": "application/xml"} if body else {},
        }

    def submit(self, **more: Any) -> dict[str, Any]:
        body = {"Type": "live_video", "Input": {"Url": LIVE, **more}, "Conf": {"BizType": "b"}}
        return self.call("POST", "video/auditing", {"Request": body})

    def query(self, job_id: str) -> dict[str, Any]:
        return self.call("GET", f"video/auditing/{job_id}")

    def cancel(self, job_id: str) -> dict[str, Any]:
        return self.call("POST", f"video/cancel_auditing/{job_id}")


@pytest.fixture
def node(process: Process, emulator: Emulator, url: str) -> Node:
    return Node(process, emulator, url)


@pytest.fixture
async def client(url: str, emulator: Emulator) -> AsyncIterator[LiveAuditClient]:
    async with LiveAuditClient(
        emulator.bucket, emulator.region, credentials=emulator.credentials, endpoint=url
    ) as client:
        yield client


async def test_what_node_submits_is_understood(node: Node, client: LiveAuditClient) -> None:
    """The client finds URL, DataId and UserInfo of a job that the SDK submitted."""
    details = await node.data(node.submit(DataId="room 7 <&>", UserInfo=USER))
    job = await client.query(details["JobId"])
    assert (details["State"], details["DataId"]) == ("Submitted", "room 7 <&>")
    assert (job.url, job.data_id, job.type) == (LIVE, "room 7 <&>", "live_video")
    assert job.user_info == UserInfo(
        token_id="t1", nickname="Zoë <&>", room="7", ip="10.0.0.7", level="9"
    )


async def test_node_reads_the_same_job_as_our_client(
    node: Node, client: LiveAuditClient, emulator: Emulator
) -> None:
    """State, verdict, snapshots and sections have the same values in both."""
    script = (frame(0, "Porn", score=98, text="a < b"), frame(0), sound(0, "Abuse", duration=0))
    job_id = emulator.add_job(duration=0, script=script, data_id="room 7")
    details, job = await node.data(node.query(job_id)), await client.query(job_id)
    assert (details["JobId"], details["DataId"], details["State"]) == (job_id, "room 7", "Success")
    assert (details["Label"], details["Result"]) == (job.label, str(job.result))
    assert [(s["SnapshotTime"], s["Label"], s.get("Text")) for s in details["Snapshot"]] == [
        (str(s.snapshot_time), s.label, s.text) for s in job.snapshots
    ]
    assert details["Snapshot"][0]["PornInfo"] == {"HitFlag": "1", "Score": "98"}
    assert details["AudioSection"]["OffsetTime"] == str(job.audio_sections[0].offset_time)


async def test_cancels_are_seen_by_both(
    node: Node, client: LiveAuditClient, emulator: Emulator
) -> None:
    """A job that either of them cancels is cancelled for the other."""
    by_node, by_us = emulator.add_job(), emulator.add_job()
    assert (await node.data(node.cancel(by_node)))["JobId"] == by_node
    await client.cancel(by_us)
    assert (await client.query(by_node)).state == JobState.CANCELLED
    assert (await node.data(node.query(by_us)))["State"] == "Cancelled"


async def test_node_is_accepted_with_a_token(node: Node, emulator: Emulator) -> None:
    """The SDK's temporary credentials are accepted for every operation."""
    emulator.credentials = attrs.evolve(emulator.credentials, token="tok/en+1==")
    job_id = emulator.add_job()
    await node.run(node.submit(), node.query(job_id), node.cancel(job_id))
    assert [arrival.status for arrival in emulator.arrivals] == [200] * 3


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"secret_key": "wrong"}, 403, "SignatureDoesNotMatch"),
        ({"secret_id": "AKIDOTHER"}, 401, "SecretidNotExist"),
        ({"token": "needless"}, 403, "AccessDenied"),
    ],
)
async def test_node_is_refused_with_wrong_credentials(
    node: Node, emulator: Emulator, changes: dict[str, Any], status: int, code: str
) -> None:
    """The SDK sees the status and the code, and does not retry."""
    wrong = attrs.evolve(emulator.credentials, **changes)
    call = node.query(emulator.add_job())
    assert await node.error(call, credentials=wrong) == (status, code)
    assert len(emulator.arrivals) == 1


async def test_node_is_told_what_is_wrong(node: Node, emulator: Emulator) -> None:
    """A job, an id, a bucket and a stream that are wrong have the codes of the service."""
    other = node.query("av1")
    other["Url"] = other["Url"].replace("example", "other")
    calls = [node.query("av0"), node.query("a.b"), other, node.submit(Url="file:///etc/passwd")]
    outcomes, _ = await node.run(*calls)
    assert [(o["error"]["status"], o["error"]["code"]) for o in outcomes] == [
        (404, "AuditingJobNotFound"),
        (400, "InvalidArgument"),
        (404, "NoSuchBucket"),
        (400, "InvalidArgument"),
    ]
    assert outcomes[1]["error"]["message"] == "auditing jobId is illegal."


async def test_node_corrects_its_clock(node: Node, emulator: Emulator) -> None:
    """Told that its signature is not valid yet, the SDK learns the time and tries again."""
    emulator.inject(Fault.skew(-3600))
    outcomes, offset = await node.run(node.query(emulator.add_job()))
    assert "data" in outcomes[0]
    assert [arrival.status for arrival in emulator.arrivals] == [403, 200]
    assert offset == pytest.approx(-3_600_000, abs=60_000)


@pytest.mark.parametrize("token", [None, "tok/en+1=="])
async def test_a_url_that_node_signed_is_accepted(
    node: Node, emulator: Emulator, token: str | None
) -> None:
    """Whoever has the URL can query the job, with nothing but a plain HTTP client."""
    emulator.credentials = attrs.evolve(emulator.credentials, token=token)
    call = {
        "method": "getObjectUrl",
        "Key": f"video/auditing/{emulator.add_job()}",
        "Domain": node.url.removeprefix("http://"),
        "Protocol": "http:",
        "Query": {"a": "x + y/é", "b": ""},
        "Expires": 60,
    }
    (outcome,), _ = await node.run(call)
    async with httpx.AsyncClient() as http:
        assert (await http.get(outcome["data"]["Url"])).status_code == 200
        assert (await http.get(outcome["data"]["Url"].replace("b=", "b=1"))).status_code == 403
