"""The vendor's own SDK against the emulator: an independent client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import anyio.to_thread
import attrs
import httpx
import pytest
from qcloud_cos import CosConfig, CosS3Client, CosServiceError

from ci_live_audit import Credentials, JobState, LiveAuditClient, UserInfo
from ci_live_audit.testing import Emulator, Fault, frame, sound

LIVE = "rtmp://live.example.com/app/room7?a=1&b=2"
USER = {"TokenId": "t1", "Nickname": "Zoë <&>", "Room": "7", "IP": "10.0.0.7", "Level": "9"}


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


class Vendor:
    """The SDK, whose blocking methods are called in a worker thread."""

    def __init__(self, url: str, bucket: str, credentials: Credentials) -> None:
        self.bucket = bucket
        config = CosConfig(
            Region="ap-beijing",
            SecretId=credentials.secret_id,
            SecretKey=credentials.secret_key,
            Token=credentials.token,
            Scheme="http",
            Domain=url.removeprefix("http://"),
            KeepAlive=False,  # its pool is never closed and would leave sockets open
            Timeout=10,
        )
        self.client = CosS3Client(config)

    async def submit(self, **options: Any) -> dict[str, Any]:
        return await self._call(self.client.ci_auditing_live_video_submit, **options)

    async def query(self, job_id: str) -> dict[str, Any]:
        return await self._call(self.client.ci_auditing_video_query, JobID=job_id)

    async def cancel(self, job_id: str) -> dict[str, Any]:
        return await self._call(self.client.ci_auditing_live_video_cancle, JobID=job_id)

    async def _call(self, method: Callable[..., dict[str, Any]], **options: Any) -> dict[str, Any]:
        return await anyio.to_thread.run_sync(partial(method, Bucket=self.bucket, **options))


@pytest.fixture
def vendor(url: str, emulator: Emulator) -> Vendor:
    return Vendor(url, emulator.bucket, emulator.credentials)


@pytest.fixture
async def client(url: str, emulator: Emulator) -> AsyncIterator[LiveAuditClient]:
    async with LiveAuditClient(
        emulator.bucket, emulator.region, credentials=emulator.credentials, endpoint=url
    ) as client:
        yield client


async def test_a_submission_of_the_sdk_is_understood(
    vendor: Vendor, client: LiveAuditClient
) -> None:
    """The client finds URL, DataId and UserInfo of a job that the SDK submitted."""
    response = await vendor.submit(
        BizType="b81d45f9",
        Url=LIVE,
        DataId="room 7 <&>",
        UserInfo=USER,
        Callback="https://example.com/hook?a=1&b=2",
    )
    details = response["JobsDetail"]
    job = await client.query(details["JobId"])
    assert (details["State"], details["DataId"]) == ("Submitted", "room 7 <&>")
    assert (job.url, job.data_id, job.type) == (LIVE, "room 7 <&>", "live_video")
    assert job.user_info == UserInfo(
        token_id="t1", nickname="Zoë <&>", room="7", ip="10.0.0.7", level="9"
    )


async def test_the_sdk_reads_the_same_job_as_our_client(
    vendor: Vendor, client: LiveAuditClient, emulator: Emulator
) -> None:
    """State, verdict, snapshots and sections have the same values in both."""
    script = (frame(0, "Porn", score=98, text="a < b"), frame(0), sound(0, "Abuse", duration=0))
    job_id = emulator.add_job(duration=0, script=script, data_id="7")
    details, job = (await vendor.query(job_id))["JobsDetail"], await client.query(job_id)
    assert (details["JobId"], details["DataId"], details["State"]) == (job_id, "7", "Success")
    assert (details["Label"], details["Result"], details["SnapshotCount"]) == ("Porn", "1", "2")
    assert (job.label, job.result, job.snapshot_count) == ("Porn", 1, 2)
    assert details["PornInfo"] == {"HitFlag": "1", "Count": "1"}
    assert [(s["SnapshotTime"], s["Label"], s.get("Text")) for s in details["Snapshot"]] == [
        (str(s.snapshot_time), s.label, s.text) for s in job.snapshots
    ]
    assert details["Snapshot"][0]["PornInfo"] == {"HitFlag": "1", "Score": "98"}
    assert [(s["OffsetTime"], s["Duration"]) for s in details["AudioSection"]] == [
        (str(s.offset_time), str(s.duration)) for s in job.audio_sections
    ]


async def test_a_cancel_of_the_sdk_is_seen_by_our_client(
    vendor: Vendor, client: LiveAuditClient, emulator: Emulator
) -> None:
    """A job that the SDK cancels is cancelled for both."""
    job_id = emulator.add_job()
    response = await vendor.cancel(job_id)
    assert response["JobsDetail"]["JobId"] == job_id
    assert (await client.query(job_id)).state == JobState.CANCELLED
    assert (await vendor.query(job_id))["JobsDetail"]["State"] == "Cancelled"


async def test_a_cancel_of_our_client_is_seen_by_the_sdk(
    vendor: Vendor, client: LiveAuditClient
) -> None:
    """A job that our client cancels is cancelled for both."""
    submitted = await client.submit(LIVE)
    await client.cancel(submitted.job_id)
    assert (await vendor.query(submitted.job_id))["JobsDetail"]["State"] == "Cancelled"


async def test_the_sdk_is_accepted_with_a_token(url: str, emulator: Emulator) -> None:
    """The SDK's temporary credentials are accepted for every operation."""
    emulator.credentials = attrs.evolve(emulator.credentials, token="tok/en+1==")
    vendor = Vendor(url, emulator.bucket, emulator.credentials)
    job_id = (await vendor.submit(BizType="b", Url=LIVE))["JobsDetail"]["JobId"]
    await vendor.query(job_id)
    await vendor.cancel(job_id)
    assert [arrival.status for arrival in emulator.arrivals] == [200] * 3


async def test_a_url_that_the_sdk_signed_is_accepted(vendor: Vendor, emulator: Emulator) -> None:
    """Whoever has the URL can query the job, with nothing but a plain HTTP client."""
    url = vendor.client.get_presigned_url(
        emulator.bucket,
        f"video/auditing/{emulator.add_job()}",
        "GET",
        Params={"a": "x + y/é"},
        UseCiEndPoint=True,
    )
    async with httpx.AsyncClient() as http:
        assert (await http.get(url)).status_code == 200
        assert (await http.get(url.replace("&a=", "&a=b"))).status_code == 403


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"secret_key": "wrong"}, 403, "SignatureDoesNotMatch"),
        ({"secret_id": "AKIDOTHER"}, 401, "SecretidNotExist"),
        ({"token": "needless"}, 403, "AccessDenied"),
    ],
)
async def test_the_sdk_is_refused_with_wrong_credentials(
    url: str, emulator: Emulator, changes: dict[str, Any], status: int, code: str
) -> None:
    """The SDK sees the status and the code, and does not retry."""
    vendor = Vendor(url, emulator.bucket, attrs.evolve(emulator.credentials, **changes))
    with pytest.raises(CosServiceError) as caught:
        await vendor.query(emulator.add_job())
    assert caught.value.get_status_code() == status
    assert f"<Code>{code}</Code>" in caught.value.get_origin_msg()
    assert len(emulator.arrivals) == 1


async def test_the_sdk_sees_that_a_job_does_not_exist(vendor: Vendor) -> None:
    """The SDK sees a 404, but no code, as an error document of CI has no Resource."""
    with pytest.raises(CosServiceError) as caught:
        await vendor.query("av0")
    assert (caught.value.get_status_code(), caught.value.get_error_code()) == (404, "Unknown")
    assert "<Code>AuditingJobNotFound</Code>" in caught.value.get_origin_msg()


async def test_the_sdk_does_not_retry_throttling(vendor: Vendor, emulator: Emulator) -> None:
    """The SDK sends one request and does not retry a 429."""
    emulator.add_job("av1")
    emulator.inject(Fault.throttle())
    with pytest.raises(CosServiceError) as caught:
        await vendor.query("av1")
    assert caught.value.get_status_code() == 429
    assert [arrival.status for arrival in emulator.arrivals] == [429]
