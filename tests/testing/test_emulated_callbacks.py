"""The emulator calls back: when, with what, to whom, and what may go wrong."""

from __future__ import annotations

import asyncio
import math
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
from clocks import now, run_virtual
from command_line import Clock
from runs import tasks
from servers import answering, eventually, serving, silent, trusted

from ci_live_audit import (
    AudioSection,
    ConfigurationError,
    InvalidArgument,
    InvalidInput,
    LiveAuditClient,
    Snapshot,
    UserInfo,
    callbacks,
)
from ci_live_audit.callbacks import Callback
from ci_live_audit.testing import (
    Delivery,
    Emulator,
    Fault,
    VirtualTimeLoop,
    callback_headers,
    frame,
    sound,
)

LIVE = "rtmp://live.example.com/app/room7"
HOOK = "https://bot.example.com/ci/room7"
SCRIPT: list[Snapshot | AudioSection] = [
    frame(5, "Porn"),
    frame(5, "Ads"),
    sound(6, "Ads", duration=2),
    frame(9),
]


class Receiver:
    """An ASGI app that notes what it gets, and answers with the statuses in turn."""

    def __init__(self, *statuses: int, takes: float = 0.0) -> None:
        self.got: list[tuple[float, Callback]] = []
        self.paths: list[str] = []
        self.headers: dict[str, str] = {}
        self.at_once = self.most_at_once = 0
        self._statuses = list(statuses)
        self._takes = takes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["method"] == "POST"
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.paths.append(scope["path"])
        self.got.append((now(), callbacks.decode(body, self.headers)))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(self._takes)
        self.at_once -= 1
        status = self._statuses.pop(0) if self._statuses else 200
        headers = [(b"location", b"https://elsewhere.example.com/")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"thank you"})

    def about_jobs(self) -> list[tuple[int, Callback]]:
        """Return what it got but for tests of its URL, with whole seconds."""
        return [(round(time), callback) for time, callback in self.got if not callback.probe]

    def times(self) -> list[int]:
        return [time for time, _ in self.about_jobs()]


def numbers(receiver: Receiver) -> list[str]:
    """Return the labels that were new in each callback."""
    jobs = [callback.job for _, callback in receiver.about_jobs()]
    return [str(job.snapshots[0].label) for job in jobs if job and not job.ended]


async def submit(client: LiveAuditClient, version: str = "Detail", **options: Any) -> str:
    options = {"callback": HOOK, "extra": {"Conf": {"CallbackVersion": version}}} | options
    return (await client.submit(LIVE, **options)).job_id


async def script(emulator: Emulator, **options: Any) -> None:
    """Run a job that is called back about to its end."""
    defaults: dict[str, Any] = {"duration": 30, "script": SCRIPT, "callback_version": "Detail"}
    emulator.add_job(callback=HOOK, **(defaults | options))
    await asyncio.sleep(100)


# What is said


async def test_nobody_is_called_back_by_default() -> None:
    """A callback URL is only taken note of."""
    emulator = Emulator()
    async with emulator.client() as client:
        await submit(client)
        await asyncio.sleep(1000)
    assert emulator.deliveries == []
    assert emulator.callbacks is None


async def test_a_detail_callback_for_what_is_found_together() -> None:
    """The lists hold what is new, and at the end all; the rest is as in a query of that time."""
    receiver = Receiver()
    emulator = Emulator(callbacks=receiver)
    emulator.add_stream(LIVE, duration=30, script=SCRIPT)
    async with emulator.client() as client:
        user = UserInfo(room="7")
        job_id = await submit(client, data_id="room7", user_info=user)
        await asyncio.sleep(100)
        end = await client.query(job_id)
    times, found = zip(*receiver.about_jobs(), strict=True)
    jobs = [callback.job for callback in found]
    assert times == (5, 8, 9, 30)
    assert [(job.state, len(job.snapshots), len(job.audio_sections)) for job in jobs] == [
        ("Auditing", 2, 0),
        ("Auditing", 0, 1),
        ("Auditing", 1, 0),
        ("Success", 3, 1),
    ]
    assert [job.snapshot_count for job in jobs] == [2, 0, 1, 3]
    assert [(job.label, job.result) for job in jobs] == [("Porn", 1)] * 4
    assert [job.scenes["Ads"].count for job in jobs] == [1, 1, 1, 1]
    for job in jobs:
        assert (job.job_id, job.data_id, job.url, job.type) == (job_id, "room7", LIVE, "live_video")
        assert (job.bucket_id, job.region, job.forbid_state) == (
            *("examplebucket-1250000000", "ap-beijing", 0),
        )
        assert (job.user_info, job.creation_time) == (user, end.creation_time)
        assert (job.code, job.message, job.unreadable) == ("Success", "success", ())
    said = [item for job in jobs[:3] for item in (*job.snapshots, *job.audio_sections)]
    for items in (said, [*jobs[3].snapshots, *jobs[3].audio_sections]):
        assert sorted(map(alike, items)) == sorted(
            map(alike, (*end.snapshots, *end.audio_sections))
        )


def alike(item: Any) -> str:
    """Return a finding as text, without the signature of its URL."""
    url = item.url.partition("?")[0]
    return repr(attrs.evolve(item, url=url, url_expires_at=None))


async def test_a_simple_callback_is_the_default() -> None:
    """It tells no state, and the last one looks like those before it."""
    receiver = Receiver()
    emulator = Emulator(callbacks=receiver)
    emulator.add_stream(LIVE, duration=30, script=SCRIPT)
    async with emulator.client() as client:
        job_id = (await client.submit(LIVE, callback=HOOK, data_id="room7")).job_id
        await asyncio.sleep(100)
    assert [(time, one.form, one.job_id) for time, one in receiver.about_jobs()] == [
        (time, "Simple", job_id) for time in (5, 8, 9, 30)
    ]
    last = receiver.got[-1][1]
    assert (last.code, last.message, last.data_id, last.url) == ("0", "success", "room7", LIVE)
    assert (last.result, last.scenes["Porn"].count, last.state) == (1, 1, None)


async def test_the_request() -> None:
    """It is a POST of JSON that names its form, to the path of the URL."""
    receiver = Receiver()
    await script(Emulator(callbacks=receiver), script=[], duration=5)
    assert receiver.paths == ["/ci/room7"] * 2
    assert receiver.headers["content-type"] == "application/json"
    assert receiver.headers["x-ci-content-version"] == "Detail"
    assert receiver.headers["host"] == "bot.example.com"


async def test_violations_only() -> None:
    """Type 2: what is normal is not told, nor is a normal end."""
    receiver = Receiver()
    emulator = Emulator(callbacks=receiver)
    await script(emulator, callback_type=2, script=[*SCRIPT, frame(5)])
    counts = [(time, one.job and one.job.snapshot_count) for time, one in receiver.about_jobs()]
    assert counts == [(5, 2), (8, 0), (30, 2)]
    receiver.got.clear()
    await script(emulator, callback_type=2, script=[frame(5)])
    assert receiver.got == []


@pytest.mark.parametrize(("code", "simple"), [("1045", "1045"), ("ResourceNotFound",) * 2])
async def test_a_failed_job(code: str, simple: str) -> None:
    """The last callback says why it failed."""
    receiver = Receiver()
    emulator = Emulator(callbacks=receiver)
    failure = (code, "no stream")
    await script(emulator, failure=failure)
    await script(emulator, failure=failure, callback_version="Simple")
    ends = [one for _, one in receiver.about_jobs() if one.code == simple]
    assert [(one.form, one.state, one.message) for one in ends] == [
        ("Detail", "Failed", "no stream"),
        ("Simple", None, "no stream"),
    ]


async def test_a_cancelled_job() -> None:
    """It is told at once, and nothing comes afterwards."""
    receiver = Receiver()
    emulator = Emulator(callbacks=receiver)
    emulator.add_stream(LIVE, duration=math.inf, script=SCRIPT)
    async with emulator.client() as client:
        job_id = await submit(client)
        await asyncio.sleep(6)
        await client.cancel(job_id)
        await asyncio.sleep(100)
    assert [(time, one.state) for time, one in receiver.about_jobs()] == [
        (5, "Auditing"),
        (6, "Cancelled"),
    ]


async def test_what_is_found_while_a_job_is_submitted() -> None:
    """It is told when the job begins to be audited, as a query shows it."""
    receiver = Receiver()
    await script(Emulator(callbacks=receiver), script=[frame(0), frame(1), frame(40)])
    assert receiver.times() == [1, 30]


async def test_a_job_without_an_end() -> None:
    """It is told what is found, and then there is nothing to wait for."""
    receiver = Receiver()
    emulator = Emulator(callbacks=receiver)
    emulator.add_job()
    await script(emulator, duration=math.inf)
    assert receiver.times() == [5, 8, 9]


async def test_a_url_is_tested_when_it_is_first_used() -> None:
    """The test comes before anything else, once for each URL, in the form of the submission."""
    receiver = Receiver(503)
    emulator = Emulator(callbacks=receiver)
    async with emulator.client() as client:
        await submit(client)
        await asyncio.sleep(0.5)
        (probe,) = receiver.got
        assert (probe[1].probe, probe[1].form) == (True, "Detail")
        await submit(client)
        await submit(client, "Simple", callback="http://bot.example.com/other")
        await asyncio.sleep(1e5)
    assert [one.form for _, one in receiver.got if one.probe] == ["Detail", "Simple"]
    assert receiver.paths[:2] == ["/ci/room7", "/other"]
    probes = [delivery for delivery in emulator.deliveries if delivery.job_id is None]
    assert [(delivery.status, delivery.attempt) for delivery in probes] == [(503, 1), (200, 1)]


async def test_a_form_that_does_not_exist() -> None:
    """A submission with it is refused."""
    async with Emulator().client() as client:
        with pytest.raises(InvalidArgument, match="CallbackVersion must be Simple or Detail"):
            await submit(client, "Full")


# How it is sent


async def test_deliveries_are_noted() -> None:
    """What was sent, when, to whom, and what came back."""
    emulator = Emulator(callbacks=Receiver(200, 204), callback_pause=math.inf)
    await script(emulator, job_id="av1", script=[])
    test, end = emulator.deliveries
    assert end == Delivery(
        time=end.time, url=HOOK, form="Detail", job_id="av1", body=end.body, status=204
    )
    assert (test.job_id, test.status, round(end.time)) == (None, 200, 30)
    assert callbacks.decode(end.body, callback_headers("Detail")).state == "Success"


async def test_a_callback_is_sent_again_until_it_is_taken() -> None:
    """Every half an hour, the same body; the pause can be set."""
    receiver = Receiver(200, 503, 307, 200)
    emulator = Emulator(callbacks=receiver)
    await script(emulator, script=[])
    await asyncio.sleep(1e5)
    assert receiver.times() == [30, 1830, 3630]
    assert len({one.key for _, one in receiver.about_jobs()}) == 1
    sent = [(delivery.attempt, delivery.status) for delivery in emulator.deliveries[1:]]
    assert sent == [(1, 503), (2, 307), (3, 200)]
    receiver = Receiver(200, 500)
    await script(Emulator(callbacks=receiver, callback_pause=2.5), script=[])
    start = receiver.got[0][0]
    assert [round(time - start, 1) for time, _ in receiver.got[1:]] == [30, 32.5]


async def test_a_callback_is_given_up_after_a_day() -> None:
    """Nobody waits for it any more, and it has harmed nothing."""
    receiver = Receiver(*[404] * 100)
    await script(Emulator(callbacks=receiver), script=[])
    await asyncio.sleep(1e6)
    assert (len(receiver.times()), receiver.times()[-1]) == (49, 30 + 86400)


async def test_a_receiver_that_fails_is_noted() -> None:
    """One that raises, and one that takes too long; the others are called all the same."""

    async def broken(scope: Any, *_: Any) -> None:
        if scope["path"] == "/broken":
            raise ValueError("no such room")
        await asyncio.sleep(20 if scope["path"] == "/slow" else math.inf)

    emulator = Emulator(callbacks=broken, callback_pause=math.inf)
    for path in ("broken", "slow"):
        emulator.add_job(duration=5, script=[], callback=f"http://bot.example.com/{path}")
    await asyncio.sleep(100)
    errors = [(delivery.status, delivery.error) for delivery in emulator.deliveries]
    assert (
        errors
        == [
            (0, "ValueError: no such room"),
            (0, "no response within 10 s"),
        ]
        * 2
    )


async def test_callbacks_at_once_are_bounded() -> None:
    """At most 50 are under way, and the rest wait their turn."""
    receiver = Receiver(takes=1.0)
    emulator = Emulator(callbacks=receiver)
    for _ in range(120):
        emulator.add_job(duration=5, script=[], callback=HOOK)
    await asyncio.sleep(100)
    assert receiver.most_at_once == 50
    assert sorted(set(receiver.times())) == [5, 6, 7]
    assert len(receiver.times()) == 120


async def test_of_very_many_deliveries_the_last_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are forgotten in time."""
    monkeypatch.setattr("ci_live_audit.testing.posting.MOST_DELIVERIES", 10)
    monkeypatch.setattr("ci_live_audit.testing.posting.DELIVERIES", 8)
    emulator = Emulator(callbacks=Receiver())
    await script(emulator, script=[frame(at) for at in range(1, 21)])
    assert 8 <= len(emulator.deliveries) <= 10
    assert callbacks.decode(emulator.deliveries[-1].body).state == "Success"


# Faults


FRAMES = [frame(at, label) for at, label in zip((5, 10, 15, 20), "abcd", strict=True)]


@pytest.mark.parametrize(
    ("fault", "times", "labels"),
    [
        (Fault.lost(), 2, "cd"),
        (Fault.twice(), 1, "aabcd"),
        (Fault.late(7), 1, "bacd"),
        (Fault.out_of_order(), 1, "bacd"),
        (Fault.out_of_order(), 2, "cbad"),
        (Fault.out_of_order(), None, "dcba"),
    ],
)
async def test_faults(fault: Fault, times: int | None, labels: str) -> None:
    """A callback is lost, repeated, late, or overtaken; what it says stays as it was."""
    receiver = Receiver()
    emulator = Emulator(callbacks=receiver)
    emulator.inject(fault, times=times)
    await script(emulator, script=FRAMES)
    assert "".join(numbers(receiver)) == labels
    assert receiver.got[0][1].probe
    lost = [one.error for one in emulator.deliveries if one.error]
    assert lost == ["not sent: lost"] * (labels == "cd") * 2


async def test_what_is_lost_does_not_come_later() -> None:
    """It is not sent again, for nobody has refused it."""
    receiver = Receiver()
    emulator = Emulator(callbacks=receiver)
    emulator.inject(Fault.lost())
    await script(emulator)
    await asyncio.sleep(1e5)
    assert receiver.times() == []
    assert len(emulator.deliveries) == 5
    emulator.faults.clear()
    await script(emulator, script=[])
    assert len(receiver.times()) == 1


async def test_the_last_callback_is_not_overtaken() -> None:
    """What was held back comes at the end, even if the end itself is not told."""
    receiver = Receiver()
    emulator = Emulator(callbacks=receiver)
    emulator.inject(Fault.out_of_order(), times=1)
    await script(emulator, script=[])
    assert receiver.times() == [30]
    await script(emulator, script=[frame(5, "Porn")])
    assert [one.state for _, one in receiver.about_jobs()][1:] == ["Success", "Auditing"]
    emulator.inject(Fault.out_of_order(), times=1)
    emulator.inject(Fault.lost(), times=1)
    await script(emulator, script=[frame(5, "Porn")], callback_type=2)
    assert [one.state for _, one in receiver.about_jobs()][3:] == ["Auditing"]


async def test_faults_of_callbacks_and_of_requests_do_not_mix() -> None:
    """A callback meets none that is for requests, and the other way round."""
    receiver = Receiver()
    emulator = Emulator(callbacks=receiver)
    emulator.inject(Fault.lost(), times=1)
    emulator.inject(Fault.throttle(), times=1)
    async with emulator.client() as client:
        await submit(client)
        await asyncio.sleep(100)
    assert [arrival.status for arrival in emulator.arrivals] == [429, 200]
    assert len(receiver.times()) == len(emulator.deliveries) - 2 > 1


def test_a_share_of_the_callbacks_is_the_same_with_the_same_seed() -> None:
    """Chance repeats itself, another seed has another."""

    async def main(seed: int) -> list[str]:
        receiver = Receiver()
        emulator = Emulator(callbacks=receiver, seed=seed)
        emulator.inject(Fault.lost(), share=0.5)
        await script(emulator, script=[frame(at, str(at)) for at in range(1, 29)])
        return numbers(receiver)

    one, again, other = (run_virtual(partial(main, seed)) for seed in (1, 1, 2))
    assert one == again != other
    assert 5 < len(one) < 23


# Over the network


@pytest.mark.waits
async def test_a_served_emulator_calls_the_urls_of_this_machine() -> None:
    """Over a real socket: the test, what is found, and the end, whoever refuses or is not there."""
    emulator = Emulator(callbacks=True, callback_pause=0.1)
    async with (
        serving(answering()) as good,
        serving(answering(status="302 Found", headers=f"Location: {good.url}/\r\n")) as moved,
        emulator.serve() as url,
        emulator.client(endpoint=url, http_client=None) as client,
    ):
        emulator.add_stream(LIVE, duration=0.1, script=[frame(0.05)])
        bases = {"good": good.url, "moved": moved.url, "gone": "http://127.0.0.1:9"}
        for name, base in bases.items():
            await submit(client, callback=f"{base}/{name}?room=7")
        assert await eventually(lambda: len(moved.requests) > 3 and len(good.requests) == 3)
        emulator.callbacks = None
        assert await good.all_closed()
        assert await moved.all_closed()
    head = good.requests[-1].decode().lower()
    assert head.startswith("post /good?room=7 http/1.1")
    assert "x-ci-content-version: detail" in head
    gone = [one for one in emulator.deliveries if "/gone" in one.url]
    assert gone[0].status == 0
    assert (gone[0].error or "").startswith("ConnectError: ")


@pytest.mark.waits
async def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate is verified, against those that the environment names."""
    strange = tmp_path / "strange"
    strange.mkdir()
    unknown = trusted(strange, monkeypatch)
    known = trusted(tmp_path, monkeypatch)
    emulator = Emulator(callbacks=True, callback_pause=math.inf)
    async with serving(answering(), known) as one, serving(answering(), unknown) as other:
        for server in (one, one, other):
            emulator.add_job(duration=0.1, script=[], callback=server.url)
        assert await eventually(lambda: len(one.requests) == 3)
        assert await eventually(lambda: sum(bool(one.error) for one in emulator.deliveries) == 2)
    errors = [delivery.error for delivery in emulator.deliveries if delivery.error]
    assert all("CERTIFICATE_VERIFY_FAILED" in error for error in errors)


@pytest.mark.parametrize(
    "url",
    ["https://bot.example.com/ci", "http://192.0.2.1/", "http://localhost.example.com:80/"],
)
async def test_other_machines_are_not_called(url: str) -> None:
    """What a program submits may be the URL of its production: it is noted, and left alone."""
    emulator = Emulator(callbacks=True)
    emulator.add_job(callback=url, duration=5)
    await asyncio.sleep(1e5)
    (delivery,) = emulator.deliveries
    assert (delivery.url, delivery.status) == (url, 0)
    assert (delivery.error or "").startswith("not sent: callbacks=True is for URLs of this machine")


@pytest.mark.waits
async def test_a_receiver_that_never_answers_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is closed when its time is up."""
    monkeypatch.setattr("ci_live_audit.testing.posting.TIMEOUT", 0.1)
    emulator = Emulator(callbacks=True)
    async with serving(silent()) as server:
        emulator.add_job(duration=5, callback=server.url)
        assert await eventually(lambda: bool(emulator.deliveries and emulator.deliveries[0].error))
        assert await server.all_closed()
        emulator.callbacks = None
    assert emulator.deliveries[0].error == "no response within 0.1 s"


# How long it lives


async def test_nothing_runs_between_callbacks() -> None:
    """There is no task but while a callback is sent."""
    receiver = Receiver(takes=1.0)
    emulator = Emulator(callbacks=receiver)
    emulator.add_job(duration=30, script=[frame(5)], callback=HOOK)
    counts = {}
    for second in (0.5, 3, 5.5, 10, 30.5, 40):
        await asyncio.sleep(second - now())
        counts[second] = len(tasks())
    assert counts == {0.5: 1, 3: 0, 5.5: 1, 10: 0, 30.5: 1, 40: 0}


async def test_callbacks_can_be_ended() -> None:
    """None ends what is being sent and what was still to come; a new one is for new jobs."""
    first, second = Receiver(200, 503, takes=1.0), Receiver()
    emulator = Emulator(callbacks=first)
    await script(emulator, duration=6, script=[])
    emulator.inject(Fault.late(10), times=1)
    emulator.add_job(duration=60, script=[frame(2), frame(5)], callback=HOOK)
    await asyncio.sleep(5.5)
    assert (len(tasks()), len(first.times())) == (1, 2)
    emulator.callbacks = second
    assert emulator.callbacks is second
    await asyncio.sleep(0.01)
    assert not tasks()
    await script(emulator, script=[])
    await asyncio.sleep(1e5)
    assert (len(first.times()), len(second.times())) == (2, 1)


def test_an_emulator_outlives_event_loops() -> None:
    """What a loop leaves undone when it ends is forgotten; the next one begins anew."""
    receiver = Receiver(takes=100)
    emulator = Emulator(callbacks=receiver)

    async def main() -> None:
        for _ in range(60):
            emulator.add_job(duration=30, script=[], callback=HOOK)
        await asyncio.sleep(35)

    run_virtual(main)
    run_virtual(main)
    emulator.callbacks = None
    assert len(receiver.times()) == 2 * 50


def test_an_emulator_that_was_made_in_another_event_loop() -> None:
    """A fixture's loop need not be that of the test, and may still be open."""
    receiver = Receiver()

    async def make() -> Emulator:
        return Emulator(callbacks=receiver)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as fixtures:
        emulator = fixtures.run(make())
        run_virtual(partial(script, emulator, script=[]))
    assert receiver.times() == [30]


@pytest.mark.parametrize("reused", [False, True])
@pytest.mark.parametrize("late", [0, 50])
def test_a_job_from_before_the_event_loop(late: int, *, reused: bool) -> None:
    """It begins with the first request, and so do its callbacks."""
    receiver = Receiver()
    emulator = Emulator(callbacks=receiver)
    if reused:
        run_virtual(lambda: script(emulator, duration=5, script=[]))
        receiver.got.clear()
    job_id = emulator.add_job(duration=30, script=[frame(5)], callback=HOOK)

    async def main() -> None:
        await asyncio.sleep(late)
        async with emulator.client() as client:
            await client.query(job_id)
        await asyncio.sleep(100)

    run_virtual(main)
    assert receiver.times() == [late + 5, late + 30]


@pytest.mark.waits
@pytest.mark.parametrize("later", [False, True])
async def test_an_app_is_called_from_the_loop_that_serves_the_emulator(*, later: bool) -> None:
    """The server has a thread of its own, and whatever the app waits for is not in it."""
    loops = set()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        loops.add(asyncio.get_running_loop())
        await Receiver()(scope, receive, send)

    emulator = Emulator(callbacks=None if later else app)
    emulator.add_stream(LIVE, duration=60, script=[])
    async with emulator.serve() as url:
        if later:
            emulator.callbacks = app
        async with emulator.client(endpoint=url, http_client=None) as client:
            job_id = await submit(client)
            await client.cancel(job_id)
        assert await eventually(lambda: len(emulator.deliveries) == 2 and not tasks())
    assert [delivery.status for delivery in emulator.deliveries] == [200, 200]
    assert loops == {asyncio.get_running_loop()}


async def test_a_job_may_begin_in_any_thread() -> None:
    """What calls back is in the event loop all the same."""
    receiver = Receiver()
    emulator = Emulator(callbacks=receiver)
    options: dict[str, Any] = {"duration": 5, "script": [], "callback": HOOK}
    await asyncio.to_thread(emulator.add_job, **options)
    await asyncio.sleep(100)
    assert receiver.times() == [5]


async def test_a_clock_that_is_not_the_loops() -> None:
    """Callbacks follow the clock of the emulator, and come when the loop next looks at it."""
    clock, receiver = Clock(), Receiver()
    emulator = Emulator(callbacks=receiver, clock=clock)
    emulator.add_job(duration=30, script=[frame(5), frame(9)], callback=HOOK)
    await asyncio.sleep(100)
    assert receiver.times() == []
    clock.seconds = 5.9999999
    await asyncio.sleep(5)
    assert len(receiver.times()) == 1
    clock.seconds = 1000
    await asyncio.sleep(5)
    assert len(receiver.times()) == 3


async def test_what_has_been_told_is_not_told_again() -> None:
    """A clock may go back, and the job be cancelled then."""
    clock, receiver = Clock(), Receiver()
    emulator = Emulator(callbacks=receiver, clock=clock, now=lambda: 0, rate=math.inf)
    emulator.add_job("av1", duration=30, script=[frame(5)], callback=HOOK)
    clock.seconds = 30
    await asyncio.sleep(10)
    clock.seconds = 20
    async with emulator.client() as client:
        assert (await client.cancel("av1")).state == "Cancelled"
    await asyncio.sleep(10)
    assert len(receiver.times()) == 2


async def test_a_job_in_place_of_another_of_the_same_id() -> None:
    """Each is told to its end."""
    receiver = Receiver()
    emulator = Emulator(callbacks=receiver)
    emulator.add_job("av1", duration=30, script=[], callback=HOOK)
    emulator.add_job("av1", duration=20, script=[], callback=HOOK)
    await asyncio.sleep(100)
    assert receiver.times() == [20, 30]


# Wrong use


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"callbacks": "http://127.0.0.1"}, "callbacks: expected an ASGI app, True or None; got"),
        ({"callbacks": 1}, "callbacks: expected an ASGI app, True or None; got int"),
        ({"callback_pause": 0}, "callback_pause: expected seconds, above 0"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], text: str) -> None:
    """The error names the argument."""
    with pytest.raises(ConfigurationError, match=text):
        Emulator(**options)


@pytest.mark.parametrize("url", ["bot.example.com", "ftp://bot.example.com", "http://a b"])
def test_a_callback_url_that_is_none(url: str) -> None:
    """A job is refused with it, as a submission is."""
    with pytest.raises(InvalidInput, match="callback: expected an http or https URL, but"):
        Emulator().add_job(callback=url)


def test_false_is_nobody() -> None:
    """As None."""
    assert Emulator(callbacks=False).callbacks is False
