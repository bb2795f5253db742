"""The emulator in process: jobs that run by the clock, refusals, the rate, and faults."""

from __future__ import annotations

import asyncio
import math
from base64 import b64encode
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from hashlib import md5
from xml.etree import ElementTree as ET

import attrs
import httpx
import pytest
from command_line import Clock
from signed import (
    CANCEL,
    CREDENTIALS,
    HOST,
    LIVE,
    NOW,
    OTHER,
    QUERY,
    SUBMIT,
    answer,
    code,
    send,
    signed,
    statuses,
    still,
    stream,
    submission,
    with_header,
)

from ci_live_audit import (
    AccessDenied,
    AudioSection,
    AuditJob,
    ConfigurationError,
    Credentials,
    DecodeError,
    HitFlag,
    InvalidArgument,
    JobState,
    LiveAuditClient,
    LiveAuditError,
    RetryPolicy,
    Scene,
    ServiceUnavailable,
    Snapshot,
    Throttled,
    TransportError,
    UserInfo,
    Verdict,
)
from ci_live_audit.testing import Arrival, Emulator, Fault, frame, sound

ONCE = RetryPolicy(attempts=1)

Script = list[Snapshot | AudioSection]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def emulator(clock: Clock) -> Emulator:
    return still(clock)


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[LiveAuditClient]:
    async with emulator.client(now=lambda: NOW, retry=ONCE) as client:
        yield client


def findings(job: AuditJob) -> Script:
    return [*job.snapshots, *job.audio_sections]


# Jobs


@pytest.mark.parametrize(
    ("at", "state", "snapshots", "sections"),
    [
        (0.0, JobState.SUBMITTED, 0, 0),
        (0.999, JobState.SUBMITTED, 0, 0),
        (1.0, JobState.AUDITING, 0, 0),
        (4.999, JobState.AUDITING, 0, 0),
        (5.0, JobState.AUDITING, 1, 0),
        (6.999, JobState.AUDITING, 1, 0),
        (7.0, JobState.AUDITING, 1, 1),
        (8.0, JobState.AUDITING, 2, 1),
        (9.999, JobState.AUDITING, 2, 1),
        (10.0, JobState.SUCCESS, 2, 1),
        (1e6, JobState.SUCCESS, 2, 1),
    ],
)
async def test_findings_appear_at_their_scripted_times(
    emulator: Emulator,
    client: LiveAuditClient,
    clock: Clock,
    at: float,
    state: JobState,
    snapshots: int,
    sections: int,
) -> None:
    """A frame appears at its time and a sound at its end; the state follows the stream."""
    script: Script = [frame(8), sound(4, "Ads", duration=3), frame(5, "Porn")]
    emulator.add_job("av2", duration=10, script=script)
    clock.seconds = at
    job = await client.query("av2")
    assert (job.state, len(job.snapshots), len(job.audio_sections)) == (state, snapshots, sections)
    assert job.ended == (state == JobState.SUCCESS)


async def test_the_default_clock_is_the_event_loop() -> None:
    """Without a clock, streams run by the event loop's time."""
    emulator = Emulator()
    job_id = emulator.add_job(duration=3600)
    async with emulator.client() as client:
        states = [(await client.query(job_id)).state]
        for seconds in (1, 3597, 2):
            await asyncio.sleep(seconds)
            states.append((await client.query(job_id)).state)
    assert states == ["Submitted", "Auditing", "Auditing", "Success"]


async def test_a_failing_stream(emulator: Emulator, client: LiveAuditClient, clock: Clock) -> None:
    """A failing job is like any other until its end, then Failed with code and message."""
    emulator.add_job("av2", duration=10, failure=("ResourceNotFound", "no <stream> & no hope"))
    clock.seconds = 9
    before = await client.query("av2")
    clock.seconds = 10
    after = await client.query("av2")
    assert (before.state, before.code, before.message) == (JobState.AUDITING, None, None)
    assert (after.state, after.code) == (JobState.FAILED, "ResourceNotFound")
    assert after.message == "no <stream> & no hope"


async def test_a_cancelled_job_keeps_its_findings(
    emulator: Emulator, client: LiveAuditClient, clock: Clock
) -> None:
    """A cancelled job keeps its state and findings, and gets no new ones."""
    emulator.add_job("av2", duration=10, script=[frame(2), frame(8)], data_id="room 7")
    clock.seconds = 5
    cancelled = await client.cancel("av2")
    clock.seconds = 100
    job = await client.query("av2")
    assert (cancelled.job_id, cancelled.data_id) == ("av2", "room 7")
    assert cancelled.state == job.state == JobState.CANCELLED
    assert cancelled.creation_time == job.creation_time
    assert len(job.snapshots) == 1


async def test_a_job_cancelled_while_submitted_has_no_findings(
    emulator: Emulator, client: LiveAuditClient, clock: Clock
) -> None:
    """Cancelling a Submitted job brings up no findings."""
    emulator.add_job("av2", script=[frame(0.2)])
    clock.seconds = 0.5
    assert (await client.query("av2")).snapshots == ()
    await client.cancel("av2")
    assert (await client.query("av2")).snapshots == ()


@pytest.mark.parametrize("failure", [None, ("InternalError", "…")])
async def test_an_ended_job_cannot_be_cancelled(
    emulator: Emulator,
    client: LiveAuditClient,
    clock: Clock,
    failure: tuple[str, str] | None,
) -> None:
    """Cancelling a job in any terminal state is refused."""
    emulator.add_job("av2", duration=10, failure=failure)
    await client.cancel("av1")
    clock.seconds = 10
    with pytest.raises(InvalidArgument, match="already ended"):
        await client.cancel("av2")
    assert (await client.cancel("av1")).state == JobState.CANCELLED
    # The client does not raise if the job is already cancelled.
    refused = [arrival.path for arrival in emulator.arrivals if arrival.status == 400]
    assert refused == ["/video/cancel_auditing/av2", "/video/cancel_auditing/av1"]


async def test_the_default_script_is_normal(client: LiveAuditClient, clock: Clock) -> None:
    """By default seven frames and three sounds appear within a minute, all normal."""
    clock.seconds = 30
    half = await client.query("av1")
    clock.seconds = 60
    job = await client.query("av1")
    assert [len(each.snapshots) for each in (half, job)] == [4, 7]
    assert [len(each.audio_sections) for each in (half, job)] == [2, 3]
    assert {item.label for item in findings(job)} == {"Normal"}
    assert (job.label, job.result, job.state) == ("Normal", Verdict.NORMAL, JobState.SUCCESS)


async def test_an_endless_stream(emulator: Emulator, client: LiveAuditClient, clock: Clock) -> None:
    """With ``duration=math.inf`` a job is still being audited after a year."""
    emulator.add_job("av2", duration=math.inf, script=[frame(5)])
    emulator.add_job("av3", duration=math.inf)
    clock.seconds = 365 * 86400.0
    assert [(await client.query(i)).state for i in ("av2", "av3")] == [JobState.AUDITING] * 2


NORMAL = frame(1)
SUSPECTED = frame(2, "Ads", result=Verdict.SUSPECTED)
PORN = frame(3, "Porn")
CURSE = sound(4, "Abuse")


@pytest.mark.parametrize(
    ("script", "label", "result", "scenes"),
    [
        ([], None, None, {}),
        ([NORMAL], "Normal", 0, {"Porn": (0, 0), "Ads": (0, 0)}),
        ([NORMAL, SUSPECTED], "Ads", 2, {"Porn": (0, 0), "Ads": (2, 1)}),
        ([SUSPECTED, PORN, PORN], "Porn", 1, {"Porn": (1, 2), "Ads": (2, 1)}),
        ([NORMAL, CURSE], "Abuse", 1, {"Porn": (0, 0), "Ads": (0, 0), "Abuse": (1, 0)}),
    ],
)
async def test_a_job_summarizes_its_findings(
    emulator: Emulator,
    client: LiveAuditClient,
    clock: Clock,
    script: Script,
    label: str | None,
    result: int | None,
    scenes: dict[str, tuple[int, int]],
) -> None:
    """A job has the worst label and result, and per scene the worst flag and a count."""
    emulator.add_job("av2", script=script)
    clock.seconds = 60
    job = await client.query("av2")
    assert (job.label, job.result) == (label, result)
    assert {name: (scene.hit_flag, scene.count) for name, scene in job.scenes.items()} == scenes
    assert job.snapshot_count == (len(job.snapshots) if script else None)


async def test_a_query_returns_what_was_scripted(
    emulator: Emulator, client: LiveAuditClient, clock: Clock
) -> None:
    """Every argument of `frame` and `sound` is returned; times are epoch milliseconds."""
    picture = frame(1.5, "Porn", score=98, sub_label="SexBehavior", text="a < b & c")
    speech = sound(2, "Abuse", duration=0.5, score=60, result=Verdict.SUSPECTED, text="…")
    script: Script = [picture, speech]
    emulator.add_job("av2", script=script)
    clock.seconds = 60
    job = await client.query("av2")
    (snapshot,), (section,) = job.snapshots, job.audio_sections
    assert snapshot.snapshot_time == NOW * 1000 + 1500
    assert (snapshot.label, snapshot.result, snapshot.text) == ("Porn", 1, "a < b & c")
    assert snapshot.porn == Scene(hit_flag=HitFlag.HIT, score=98, sub_label="SexBehavior")
    assert snapshot.ads == Scene(hit_flag=HitFlag.MISS, score=0)
    assert (section.offset_time, section.duration) == (NOW * 1000 + 2000, 500)
    assert (section.label, section.result, section.text) == ("Abuse", 2, "…")
    assert section.scenes["Abuse"] == Scene(hit_flag=HitFlag.SUSPECTED, score=60)


async def test_only_urls_change_between_queries(client: LiveAuditClient, clock: Clock) -> None:
    """URLs keep their paths but are signed anew; nothing else changes."""

    def parts(job: AuditJob) -> tuple[list[str], list[str]]:
        urls = [(item.url or "").partition("?") for item in findings(job)]
        return [url[0] for url in urls], [url[2] for url in urls]

    def without(job: AuditJob) -> AuditJob:
        return attrs.evolve(
            job,
            request_id=None,
            snapshots=tuple(attrs.evolve(item, url=None) for item in job.snapshots),
            audio_sections=tuple(attrs.evolve(item, url=None) for item in job.audio_sections),
        )

    clock.seconds = 60
    first, second = await client.query("av1"), await client.query("av1")
    assert without(first) == without(second)
    assert parts(first)[0] == parts(second)[0]
    assert len({*parts(first)[1], *parts(second)[1]}) == 20
    assert parts(first)[0][0] == (
        "https://examplebucket-1250000000.cos.ap-beijing.myqcloud.com/av1/0.jpg"
    )


async def test_a_submission_is_echoed(emulator: Emulator, client: LiveAuditClient) -> None:
    """URL, DataId and UserInfo come back with every query; the creation time is now."""
    user = UserInfo(token_id="t", nickname="<&>", ip="10.0.0.7", room="7", level="9")
    submitted = await client.submit(LIVE, data_id="a & b", user_info=user)
    job = await client.query(submitted.job_id)
    assert (submitted.state, submitted.data_id) == (JobState.SUBMITTED, "a & b")
    assert (job.url, job.data_id, job.user_info, job.type) == (LIVE, "a & b", user, "live_video")
    assert submitted.creation_time == job.creation_time == datetime.fromtimestamp(NOW, UTC)


async def test_unknown_user_info_is_harmless(
    client: LiveAuditClient,
) -> None:
    """A job submitted with unknown UserInfo nodes can be queried."""
    user = UserInfo(room="7", extra={"Vip": "1", "Extra": "2"})
    submitted = await client.submit(LIVE, user_info=user)
    echoed = (await client.query(submitted.job_id)).user_info
    assert echoed is not None
    assert echoed.room == "7"


async def test_a_submission_follows_the_script_of_its_url(
    emulator: Emulator, client: LiveAuditClient, clock: Clock
) -> None:
    """`add_stream` scripts the submissions of one URL; other URLs get the default."""
    emulator.add_stream(LIVE, duration=5, script=[frame(1, "Ads")], failure=("Lost", "gone"))
    known = await client.submit(LIVE)
    other = await client.submit("https://live.example.com/other")
    clock.seconds = 5
    job = await client.query(known.job_id)
    assert (job.state, job.code, job.label) == (JobState.FAILED, "Lost", "Ads")
    assert (await client.query(other.job_id)).state == JobState.AUDITING


async def test_two_submissions_of_one_stream_are_two_jobs(client: LiveAuditClient) -> None:
    """Submitting a stream twice makes two jobs."""
    first, second = await client.submit(LIVE), await client.submit(LIVE)
    assert first.job_id != second.job_id


def test_a_job_can_be_added_without_an_event_loop() -> None:
    """A job added without an event loop starts with its first query."""
    emulator = Emulator()
    job_id = emulator.add_job(duration=0.5)

    async def state() -> JobState:
        async with emulator.client() as client:
            return (await client.query(job_id)).state

    assert asyncio.run(state()) == JobState.SUBMITTED


# Clients


async def test_the_client_uses_the_clock_of_the_emulator() -> None:
    """The emulator's client signs by the emulator's ``now``."""
    emulator = Emulator(now=lambda: NOW)
    async with emulator.client() as client:
        await client.query(emulator.add_job())
    assert [arrival.status for arrival in emulator.arrivals] == [200]


async def test_options_of_the_client_override_defaults(emulator: Emulator) -> None:
    """Options of `Emulator.client` override its defaults."""
    wrong = Credentials("AKIDEXAMPLE", "wrong")
    async with emulator.client(credentials=wrong, now=lambda: NOW) as client:
        with pytest.raises(AccessDenied, match="SignatureDoesNotMatch"):
            await client.query("av1")


async def test_credentials_can_be_rotated(emulator: Emulator, client: LiveAuditClient) -> None:
    """Once the attribute is changed, the old key is refused."""
    emulator.credentials = Credentials("AKIDNEXT", "next")
    with pytest.raises(AccessDenied) as caught:
        await client.query("av1")
    assert (caught.value.status, caught.value.code) == (401, "SecretidNotExist")


async def test_of_very_many_arrivals_the_last_are_kept(
    emulator: Emulator, client: LiveAuditClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An emulator that runs for days does not grow."""
    monkeypatch.setattr("ci_live_audit.testing.emulator.MOST_ARRIVALS", 10)
    monkeypatch.setattr("ci_live_audit.testing.emulator.ARRIVALS", 8)
    ids = [emulator.add_job() for _ in range(30)]
    for number, job_id in enumerate(ids):
        await client.query(job_id)
        kept = [arrival.path.rpartition("/")[2] for arrival in emulator.arrivals]
        assert kept == ids[: number + 1][-len(kept) :]
        assert len(kept) >= min(number + 1, 8)
    assert len(emulator.arrivals) <= 10


def test_an_invalid_bucket_is_refused() -> None:
    """The emulator checks the bucket as the client does."""
    with pytest.raises(ConfigurationError, match="bucket"):
        Emulator(bucket="nodigits")


# Requests and responses


def without_length(request: httpx.Request) -> httpx.Request:
    del request.headers["content-length"]
    return request


def with_md5(request: httpx.Request, body: bytes) -> httpx.Request:
    return with_header(request, "content-md5", b64encode(md5(body).digest()).decode())


def long_text(length: int) -> str:
    """Return a text of ``length`` bytes, most in 3-byte characters."""
    return "直" * (length // 3) + "x" * (length % 3)


def data_id(length: int) -> str:
    return stream(more=f"<DataId>{long_text(length)}</DataId>")


def user_info(name: str, length: int) -> str:
    return stream(more=f"<UserInfo><{name}>{long_text(length)}</{name}></UserInfo>")


REFUSALS: dict[str, tuple[httpx.Request, int, str]] = {
    "unsigned": (httpx.Request("GET", f"https://{HOST}{QUERY}"), 401, "MissingAuthorization"),
    "unknown id": (
        signed(credentials=Credentials("AKIDOTHER", "secretexample")),
        401,
        "SecretidNotExist",
    ),
    "expired": (signed(at=NOW - 61), 401, "SignatureExpired"),
    "not valid yet": (signed(at=NOW + 61), 403, "RequestTimeTooSkewed"),
    "needless token": (
        signed(credentials=attrs.evolve(CREDENTIALS, token="t")),
        403,
        "AccessDenied",
    ),
    "no such path": (signed(path="/video/jobs/av1"), 404, "InvalidUrl"),
    "path too long": (signed(path=f"{QUERY}/x"), 404, "InvalidUrl"),
    "no id to query": (signed(path=SUBMIT), 404, "InvalidUrl"),
    "wrong method": (signed("DELETE"), 404, "InvalidUrl"),
    "empty id": (signed(path="/video/auditing/"), 400, "InvalidArgument"),
    "illegal id": (signed(path="/video/auditing/a.b"), 400, "InvalidArgument"),
    "id without a letter": (signed(path="/video/auditing/---"), 400, "InvalidArgument"),
    "illegal id to cancel": (signed("POST", f"{CANCEL}!"), 400, "InvalidArgument"),
    "unknown job": (signed(path=f"{QUERY}0"), 404, "AuditingJobNotFound"),
    "unknown job to cancel": (signed("POST", f"{CANCEL}0"), 404, "AuditingJobNotFound"),
    "submit without length": (without_length(submission(stream())), 411, "MissingContentLength"),
    "cancel without length": (without_length(signed("POST", CANCEL)), 411, "MissingContentLength"),
    "no body": (submission(""), 400, "MissingContent"),
    "not XML": (submission("{}"), 400, "InvalidContent"),
    "cut off": (submission(stream()[:-1]), 400, "InvalidContent"),
    "unknown encoding": (
        submission("<?xml version='1.0' encoding='gbk'?>" + stream()),
        400,
        "InvalidContent",
    ),
    "not a request": (submission(stream("Response")), 400, "InvalidArgument"),
    "recorded video": (submission(stream(kind="video")), 400, "InvalidArgument"),
    "no stream": (submission(stream(url="")), 400, "InvalidArgument"),
    "long DataId": (submission(data_id(513)), 400, "InvalidArgument"),
    "long user info": (submission(user_info("Nickname", 129)), 400, "InvalidArgument"),
    "long user info of any name": (submission(user_info("Vip", 129)), 400, "InvalidArgument"),
    "a file": (submission(stream(url="file:///etc/passwd")), 400, "InvalidArgument"),
    "no scheme": (submission(stream(url="live.example.com/room7")), 400, "InvalidArgument"),
    "no host": (submission(stream(url="rtmp:///app/room7")), 400, "InvalidArgument"),
    "no port": (submission(stream(url="rtmp://live.example.com:x/")), 400, "InvalidArgument"),
    "callback that is no URL": (
        submission(stream(conf="<Callback>ftp://example.com/</Callback>")),
        400,
        "InvalidArgument",
    ),
    "unknown kind of callback": (
        submission(stream(conf="<CallbackType>3</CallbackType>")),
        400,
        "InvalidArgument",
    ),
    "another digest": (with_md5(submission(stream()), b"other"), 400, "InvalidContent"),
    "another digest of nothing": (with_md5(signed(), b"other"), 400, "InvalidContent"),
    "no digest": (with_header(submission(stream()), "content-md5", "x"), 400, "InvalidContent"),
    "accented id": (signed(path="/video/auditing/avé"), 400, "InvalidArgument"),
    "Chinese id to cancel": (signed("POST", f"{CANCEL}直播"), 400, "InvalidArgument"),
    "full-width digits": (signed(path="/video/auditing/av\uff11"), 400, "InvalidArgument"),
}


@pytest.mark.parametrize(("request_", "status", "word"), REFUSALS.values(), ids=REFUSALS)
async def test_a_refusal_is_that_of_the_service(
    emulator: Emulator, request_: httpx.Request, status: int, word: str
) -> None:
    """Refusals have the service's status, code and headers, and change nothing."""
    response = await send(emulator, request_)
    assert (response.status_code, code(response)) == (status, word)
    assert response.headers["content-type"] == "application/xml"
    assert response.headers["server"] == "tencent-ci"
    assert response.headers["date"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert response.headers["x-ci-trace-id"]
    error = ET.fromstring(response.content)
    assert (error.tag, error.find("Resource")) == ("Error", None)
    assert error.findtext("Message")
    assert error.findtext("RequestId") == response.headers["x-ci-request-id"]
    assert emulator.arrivals[-1].status == status
    assert list(emulator.jobs) == ["av1"]


async def test_an_error_document_has_its_trace_id(emulator: Emulator) -> None:
    """A document of CI has the same ids as the headers."""
    response = await send(emulator, signed(path=f"{QUERY}0"))
    error = ET.fromstring(response.content)
    assert {node.tag for node in error} == {"Code", "Message", "RequestId", "TraceId"}
    assert error.findtext("TraceId") == response.headers["x-ci-trace-id"]


async def test_a_response_has_a_request_id_and_no_trace_id(emulator: Emulator) -> None:
    """The request id is in header and document; only errors have a trace id."""
    response = await send(emulator, signed())
    document = ET.fromstring(response.content)
    assert document.findtext("RequestId") == response.headers["x-ci-request-id"]
    assert response.headers["server"] == "tencent-ci"
    assert "x-ci-trace-id" not in response.headers


async def test_an_illegal_id_has_the_message_of_the_service(
    emulator: Emulator,
) -> None:
    """The vendor's SDKs look for this message."""
    response = await send(emulator, signed(path="/video/auditing/a.b"))
    assert ET.fromstring(response.content).findtext("Message") == ("auditing jobId is illegal.")


@pytest.mark.parametrize("host", [OTHER, f"{OTHER}:443", OTHER.upper(), f"{OTHER}.", f"{OTHER}.:1"])
async def test_another_bucket_is_refused_by_the_gateway(emulator: Emulator, host: str) -> None:
    """Only an error document of the COS gateway has a Resource."""
    response = await send(emulator, signed(host=host))
    error = ET.fromstring(response.content)
    assert (response.status_code, error.findtext("Code")) == (404, "NoSuchBucket")
    assert error.findtext("Resource") == host


@pytest.mark.parametrize("host", [f"{HOST}:443", HOST.upper(), f"{HOST}.", f"{HOST.title()}.:1"])
async def test_a_host_name_is_compared_as_one(emulator: Emulator, host: str) -> None:
    """Neither letter case, nor a port, nor a final dot makes it another host."""
    assert await statuses(emulator, signed(host=host)) == [200]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8080", "[::1]:80", "ci.example.com"])
async def test_any_other_host_is_accepted(emulator: Emulator, host: str) -> None:
    """The emulator may be served or proxied under any other host name."""
    assert await statuses(emulator, signed(host=host)) == [200]


@pytest.mark.parametrize("length", [511, 512])
async def test_a_data_id_of_512_bytes_is_accepted(emulator: Emulator, length: int) -> None:
    """The limit counts bytes, not characters."""
    assert await statuses(emulator, submission(data_id(length))) == [200]


@pytest.mark.parametrize("length", [0, 127, 128])
async def test_user_info_of_128_bytes_is_accepted(emulator: Emulator, length: int) -> None:
    """The limit is that of each field and counts bytes."""
    assert await statuses(emulator, submission(user_info("Room", length))) == [200]


@pytest.mark.parametrize("scheme", ["rtmp", "hls", "http", "https", "RTMP"])
async def test_a_stream_of_every_protocol_is_accepted(emulator: Emulator, scheme: str) -> None:
    """Those that the document names."""
    assert await statuses(emulator, submission(stream(url=f"{scheme}://a.example.com/x"))) == [200]


async def test_settings_of_callbacks_are_accepted(emulator: Emulator) -> None:
    """Callbacks may be asked for in either kind."""
    conf = "<Callback>https://example.com/</Callback><CallbackType>2</CallbackType>"
    assert await statuses(emulator, submission(stream(conf=conf))) == [200]


async def test_the_digest_of_the_body_is_accepted(emulator: Emulator) -> None:
    """A Content-MD5 that is right changes nothing, with a body or without."""
    body = stream()
    submitted = with_md5(submission(body), body.encode())
    assert await statuses(emulator, submitted, with_md5(signed(), b"")) == [200, 200]


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        (f"http://{HOST}{QUERY}", HOST, 200),
        (f"HTTPS://{HOST}:443{QUERY}", HOST, 200),
        (f"http://{HOST}{QUERY}", "127.0.0.1:8080", 200),
        (f"http://{OTHER}{QUERY}", HOST, 404),
        (f"http://{HOST}", HOST, 404),
    ],
)
async def test_a_target_may_be_a_whole_url(
    emulator: Emulator, target: str, host: str, status: int
) -> None:
    """The host of a whole URL counts, not that of the header: RFC 9112, section 3.2.2."""
    path = QUERY if target.endswith(QUERY) else "/"
    headers = with_header(signed(path=path), "host", host).headers.raw
    scope = {
        "type": "http",
        "method": "GET",
        "path": target,
        "query_string": b"",
        "headers": headers,
    }
    assert (await answer(emulator, scope))[0]["status"] == status
    assert emulator.arrivals[-1].path == path


# The rate


@pytest.mark.parametrize(
    ("rate", "quota", "window"),
    [(0.5, 1, 2.0), (2.5, 2, 0.8), (20.0, 20, 1.0), (1000.0, 1000, 1.0)],
)
async def test_requests_above_the_rate_are_refused(
    emulator: Emulator, clock: Clock, rate: float, quota: int, window: float
) -> None:
    """A window takes exactly its quota, and refused requests do not count."""
    limited = Emulator(clock=clock, now=lambda: NOW, rate=rate)
    limited.add_job("av1")
    request = signed()
    assert await statuses(limited, *[request] * quota) == [200] * quota
    clock.seconds = window / 2
    response = await send(limited, request)
    assert (response.status_code, code(response)) == (429, "SlowDown")
    clock.seconds = window
    assert await statuses(limited, *[request] * quota) == [200] * quota


@pytest.mark.parametrize("rate", [0.5, 2.5, 20.0, 1000.0])
async def test_paced_requests_pass(clock: Clock, rate: float) -> None:
    """Requests paced at the rate pass, even if a network shifts them a little."""
    limited = Emulator(clock=clock, now=lambda: NOW, rate=rate)
    limited.add_job("av1")
    for number in range(60):
        clock.seconds = number / rate + (0.01 if number % 2 else 0.0)
        assert await statuses(limited, signed()) == [200]


@pytest.mark.parametrize(("fault", "status"), [(Fault.throttle(), 200), (Fault.error(), 429)])
async def test_an_injected_throttling_does_not_count(
    clock: Clock, fault: Fault, status: int
) -> None:
    """An injected error counts against the rate, an injected throttling does not."""
    limited = Emulator(clock=clock, now=lambda: NOW, rate=1.0)
    limited.add_job("av1")
    limited.inject(fault, times=1)
    assert (await statuses(limited, signed(), signed()))[1] == status


async def test_an_infinite_rate_refuses_nothing(emulator: Emulator) -> None:
    """With ``rate=math.inf`` nothing is throttled."""
    assert set(await statuses(emulator, *[signed()] * 200)) == {200}


async def test_the_client_keeps_to_the_rate() -> None:
    """A hundred concurrent queries of its client take five seconds, and none is refused."""
    emulator = Emulator()
    job_id = emulator.add_job()
    began = asyncio.get_running_loop().time()
    async with emulator.client() as client:
        await asyncio.gather(*(client.query(job_id) for _ in range(100)))
    assert asyncio.get_running_loop().time() - began == pytest.approx(4.95, abs=0.2)
    assert {arrival.status for arrival in emulator.arrivals} == {200}


async def test_arrivals_are_recorded(emulator: Emulator, clock: Clock) -> None:
    """Each request is recorded in order, with its time and the status of its response."""
    clock.seconds = 1.5
    await send(emulator, signed())
    clock.seconds = 2.5
    await send(emulator, signed("POST", f"{CANCEL}0"))
    assert emulator.arrivals == [
        Arrival(1.5, "GET", QUERY, 200),
        Arrival(2.5, "POST", f"{CANCEL}0", 404),
    ]


# Faults


@pytest.mark.parametrize(
    ("fault", "status", "word", "retry_after"),
    [
        (Fault.throttle(), 429, "SlowDown", None),
        (Fault.throttle(retry_after=5), 429, "SlowDown", "5"),
        (Fault.throttle(retry_after=0.5, status=503), 503, "SlowDown", "0.5"),
        (Fault.error(), 500, "InternalError", None),
        (Fault.error(503), 503, "ServiceUnavailable", None),
    ],
)
async def test_a_refusing_fault_replaces_the_response(
    emulator: Emulator, fault: Fault, status: int, word: str, retry_after: str | None
) -> None:
    """Throttling and errors have their status, code and header; nothing is carried out."""
    emulator.inject(fault)
    response = await send(emulator, signed("POST", CANCEL))
    emulator.faults.clear()
    assert (response.status_code, code(response)) == (status, word)
    assert response.headers.get("retry-after") == retry_after
    assert (emulator.arrivals[0].status, await statuses(emulator, signed("POST", CANCEL))) == (
        status,
        [200],
    )


@pytest.mark.parametrize(
    ("fault", "error", "status"),
    [
        (Fault.reset(), TransportError, 0),
        (Fault.truncated(), DecodeError, 200),
        (Fault.garbage(), DecodeError, 200),
    ],
)
async def test_a_lost_response_does_not_undo_the_request(
    emulator: Emulator,
    client: LiveAuditClient,
    fault: Fault,
    error: type[LiveAuditError],
    status: int,
) -> None:
    """The request is carried out, and the client knows that it may have been."""
    emulator.inject(fault, times=1)
    with pytest.raises(error) as caught:
        await client.cancel("av1")
    assert caught.value.may_have_happened
    assert emulator.arrivals[0].status == status
    assert (await client.query("av1")).state == JobState.CANCELLED


async def test_a_truncated_response_announces_its_whole_length(emulator: Emulator) -> None:
    """Half of the body is sent under the length of the whole."""
    emulator.inject(Fault.truncated(), times=1)
    cut, whole = await send(emulator, signed()), await send(emulator, signed())
    assert cut.headers["content-length"] == whole.headers["content-length"]
    assert len(cut.content) == len(whole.content) // 2


async def test_garbage_is_an_html_page(emulator: Emulator) -> None:
    """Garbage is an HTML page with status 200."""
    emulator.inject(Fault.garbage())
    response = await send(emulator, signed())
    assert response.status_code == 200
    assert response.content.startswith(b"<html>")
    assert response.headers["content-type"].startswith("text/html")


async def test_a_slow_response_is_late_and_correct(emulator: Emulator) -> None:
    """A slow response is delayed by the given seconds."""
    emulator.inject(Fault.slow(45))
    began = asyncio.get_running_loop().time()
    assert await statuses(emulator, signed()) == [200]
    assert asyncio.get_running_loop().time() - began == pytest.approx(45, abs=0.01)


async def test_a_slow_request_counts_from_its_arrival() -> None:
    """A slow request counts against the rate when it arrives."""
    emulator = Emulator(now=lambda: NOW, rate=1.0)
    emulator.add_job("av1")
    emulator.inject(Fault.slow(5), times=1)
    late = asyncio.create_task(statuses(emulator, signed()))
    for _ in range(8):
        await asyncio.sleep(1)
        assert await statuses(emulator, signed()) == [200]
    assert await late == [200]


@pytest.mark.parametrize(("ahead", "status"), [(3600.0, 401), (-3600.0, 403)])
async def test_a_skewed_clock_refuses_signatures(
    emulator: Emulator, client: LiveAuditClient, ahead: float, status: int
) -> None:
    """A skewed clock refuses valid signatures until the client learns it from the Date."""
    emulator.inject(Fault.skew(ahead))
    response = await send(emulator, signed())
    assert response.status_code == status
    assert response.headers["date"] == http_date(NOW + ahead)
    await client.with_options(retry=RetryPolicy(attempts=2)).query("av1")
    assert [arrival.status for arrival in emulator.arrivals] == [status, status, 200]


def http_date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")


async def test_faults_apply_in_their_order(
    emulator: Emulator,
) -> None:
    """The first fault that applies is used until it is used up."""
    emulator.inject(Fault.error(503), times=2)
    emulator.inject(Fault.error(500), times=1)
    assert await statuses(emulator, *[signed()] * 4) == [503, 503, 500, 200]


@pytest.mark.parametrize("operation", ["query", "cancel", "submit"])
async def test_a_fault_can_be_limited_to_one_operation(emulator: Emulator, operation: str) -> None:
    """The other operations succeed."""
    emulator.inject(Fault.error(), operation=operation)
    requests = {
        "query": signed(),
        "cancel": signed("POST", CANCEL),
        "submit": submission(stream()),
    }
    found = dict(zip(requests, await statuses(emulator, *requests.values()), strict=True))
    assert found == dict.fromkeys(requests, 200) | {operation: 500}


async def test_a_share_is_repeatable() -> None:
    """The same seed picks the same requests, about as many as the share."""

    async def pattern(seed: int) -> list[int]:
        emulator = Emulator(now=lambda: NOW, rate=math.inf, seed=seed)
        emulator.add_job("av1")
        emulator.inject(Fault.error(), share=0.3)
        return await statuses(emulator, *[signed()] * 200)

    first = await pattern(1)
    assert first == await pattern(1) != await pattern(2)
    assert first.count(500) == pytest.approx(60, abs=20)


@pytest.mark.parametrize("limits", [{"times": 0}, {"share": 0.0}], ids=["never", "no share"])
async def test_a_fault_can_be_limited_to_nothing(
    emulator: Emulator, limits: dict[str, float]
) -> None:
    """A fault with zero times or a zero share never happens."""
    emulator.inject(Fault.error(), **limits)  # type: ignore[arg-type]
    assert await statuses(emulator, *[signed()] * 20) == [200] * 20


async def test_cleared_faults_are_over(emulator: Emulator) -> None:
    """After ``faults.clear()`` requests succeed."""
    emulator.inject(Fault.throttle())
    emulator.inject(Fault.error())
    emulator.faults.clear()
    assert await statuses(emulator, signed()) == [200]


@pytest.mark.parametrize(
    ("fault", "error"),
    [(Fault.throttle(status=503), Throttled), (Fault.error(503), ServiceUnavailable)],
)
async def test_a_client_distinguishes_throttling_from_an_outage(
    emulator: Emulator, client: LiveAuditClient, fault: Fault, error: type[LiveAuditError]
) -> None:
    """The code alone makes a 503 throttling or an outage."""
    emulator.inject(fault)
    with pytest.raises(error):
        await client.query("av1")


def test_a_rate_must_be_above_zero() -> None:
    """A rate of 0 is refused."""
    with pytest.raises(ConfigurationError, match="rate"):
        Emulator(rate=0)
