"""submit, query, cancel, wait and watch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from command_line import Service, parsed, run, serving

from ci_live_audit import AudioSection, JobState, Snapshot, Verdict
from ci_live_audit.testing import Arrival, Emulator, Fault, frame, sound

URL = "rtmp://live.example.com/app/room7"
SCRIPT: list[Snapshot | AudioSection] = [
    frame(1),
    frame(2, "Porn", score=98),
    sound(3, "Ads", text="buy now"),
    frame(5),
]


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as service:
        yield service


def running(service: Service, job_id: str, **stream: Any) -> None:
    """A job whose stream has run for ten seconds and stands there."""
    service.clock.seconds = 0
    service.emulator.add_job(job_id, **{"duration": 1000.0, "script": SCRIPT, **stream})
    service.clock.seconds = 10


def statuses(service: Service) -> list[int]:
    return [arrival.status for arrival in service.emulator.arrivals]


# submit


def test_a_job_is_submitted(service: Service) -> None:
    """Its id is told, and the service has it."""
    result = service.run("submit", URL)
    assert (result.exit_code, result.stderr) == (0, "")
    (submitted,) = parsed(result)
    (job,) = service.emulator.jobs.values()
    assert job.url == URL
    assert (submitted["schema"], submitted["kind"]) == (1, "submitted")
    assert (submitted["job_id"], submitted["state"]) == (job.job_id, "Submitted")
    assert submitted.keys() == {
        *("schema", "kind", "job_id", "data_id", "creation_time", "state", "request_id", "extra"),
    }


def test_a_job_is_submitted_with_every_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the options say arrives."""
    bodies: list[bytes] = []
    submit = Emulator._submit

    def noting(emulator: Emulator, call: Any) -> Any:
        bodies.append(call.body)
        return submit(emulator, call)

    monkeypatch.setattr(Emulator, "_submit", noting)
    with serving() as service:
        result = service.run(
            *("submit", URL, "--biz-type", "b81d45f9", "--data-id", "room <7> & 房"),
            *("--callback", "https://example.com/cb", "--callback-type", "2"),
            *("--storage-path", "recorded/room7", "--output", "table"),
        )
        (job,) = service.emulator.jobs.values()
    assert result.exit_code == 0
    assert result.stdout.split()[:4] == ["job", job.job_id, "state", "Submitted"]
    sent = ET.fromstring(bodies[0])
    assert {node.tag: node.text for node in sent.iter() if node.text} == {
        "Type": "live_video",
        "Url": URL,
        "DataId": "room <7> & 房",
        "BizType": "b81d45f9",
        "Callback": "https://example.com/cb",
        "CallbackType": "2",
        "Path": "recorded/room7",
    }


def test_a_submission_can_be_looked_at_first(service: Service) -> None:
    """--dry-run shows the request to the last byte of the body, without a signature."""
    result = service.run("submit", URL, "--data-id", "one\ntwo", "--dry-run")
    assert (result.exit_code, result.stdout) == (0, "")
    head, _, body = result.stderr.partition("\n\n")
    first, *headers = head.splitlines()
    assert first == f"POST {service.url}/video/auditing"
    assert headers[-1] == "authorization: (signed when it is sent)"
    assert any(header.startswith("content-type: ") for header in headers)
    assert "q-sign" not in result.stderr
    assert ET.fromstring(body).findtext("Input/DataId") == "one\ntwo"
    assert service.emulator.arrivals == []


@pytest.mark.parametrize(
    "arguments", [["query", "av1", "av2"], ["cancel", "av1", "av2"], ["submit", URL]]
)
def test_a_dry_run_needs_no_credentials(arguments: list[str]) -> None:
    """It shows each request, and that is all."""
    environ = {
        "CI_LIVE_AUDIT_BUCKET": "examplebucket-1250000000",
        "TENCENTCLOUD_REGION": "ap-beijing",
    }
    result = run(*arguments, "--dry-run", **environ)
    assert result.exit_code == 0
    host = "https://examplebucket-1250000000.ci.ap-beijing.myqcloud.com/video"
    assert len(re.findall(rf"(?m)^(GET|POST) {host}/", result.stderr)) == len(arguments) - 1
    assert result.stderr.count("authorization: (signed") == len(arguments) - 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["ftp://example.com/x"],
        ["not a url"],
        [URL, "--callback", "rtmp://example.com"],
        [URL, "--callback-type", "3"],
        [URL, "--data-id", "x" * 513],
        [URL, "--biz-type", ""],
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_what_the_service_would_refuse_is_not_sent(
    service: Service, arguments: list[str], dry: list[str]
) -> None:
    """One line names the argument, in a dry run as well."""
    result = service.run("submit", *arguments, *dry)
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(
        r"error: (url|callback|callback_type|data_id|biz_type): .*\n", result.stderr
    )
    assert service.emulator.arrivals == []


def test_a_submission_that_is_refused_is_told(service: Service) -> None:
    """It may have arrived, so it is not sent again."""
    service.emulator.inject(Fault.error(), operation="submit")
    result = service.run("submit", URL)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: submit: 500 InternalError")
    assert statuses(service) == [500]


# query


def test_a_job_is_shown(service: Service) -> None:
    """All of it as JSON; for people what it is, and of what was found what is not normal."""
    running(service, "av1", data_id="room7")
    result = service.run("query", "av1")
    assert (result.exit_code, result.stderr) == (3, "")
    (job,) = parsed(result)
    assert (job["kind"], job["state"], job["result"], job["label"]) == (
        "job",
        "Auditing",
        1,
        "Porn",
    )
    assert len(job["snapshots"]) == 3
    table = service.run("query", "av1", "--output", "table")
    assert table.exit_code == 3
    lines = [line.split() for line in table.stdout.splitlines()]
    assert lines[:5] == [
        ["job", "av1"],
        ["state", "Auditing"],
        ["verdict", "Sensitive"],
        ["label", "Porn"],
        ["data", "id", "room7"],
    ]
    assert ["frames,", "sounds", "3,", "1"] in lines
    assert lines[-3] == ["what", "time", "verdict", "label", "text"]
    assert [lines[-2][0], *lines[-2][2:]] == ["Snapshot", "Sensitive", "Porn"]
    assert [lines[-1][0], *lines[-1][2:]] == ["AudioSection", "Sensitive", "Ads", "buy", "now"]


@pytest.mark.parametrize("verdict", [Verdict.SENSITIVE, Verdict.SUSPECTED])
def test_something_that_is_flagged_has_an_exit_code(service: Service, verdict: Verdict) -> None:
    """Sensitive or suspected, in any of the jobs."""
    service.emulator.add_job("one", duration=0, script=[frame(0, "Porn", result=verdict)])
    service.emulator.add_job("two", duration=0)
    result = service.run("query", "one", "two")
    assert result.exit_code == 3
    assert [job["job_id"] for job in parsed(result)] == ["one", "two"]


def test_jobs_that_are_missing_do_not_keep_the_others_from_being_shown(service: Service) -> None:
    """Each is answered for, in order."""
    for job_id in ("one", "two"):
        service.emulator.add_job(job_id, duration=0)
    result = service.run("query", "one", "gone", "two", "lost")
    assert result.exit_code == 1
    assert [(line["kind"], line["job_id"]) for line in parsed(result)] == [
        ("job", "one"),
        ("error", "gone"),
        ("job", "two"),
        ("error", "lost"),
    ]
    assert [line.split()[3] for line in result.stderr.splitlines()] == ["gone:", "lost:"]


def test_a_job_that_failed_is_shown_and_no_success(service: Service) -> None:
    """Nobody has moderated it: that is not "all went well"."""
    service.emulator.add_job("broken", duration=0, failure=("DownloadFailed", "unreadable"))
    result = service.run("query", "broken", "--output", "table")
    assert (result.exit_code, result.stderr) == (1, "")
    assert re.search(r"(?m)^reason +DownloadFailed unreadable *$", result.stdout)


@pytest.mark.parametrize("command", ["query", "cancel", "wait", "watch", "poll"])
def test_an_id_that_is_none_is_refused(service: Service, command: str) -> None:
    """Nothing is sent."""
    for job_id in ("../etc", "a b", "av1?x", "", "x" * 129, "[red]", "\udcff"):
        for output in ("table", "json"):
            result = service.run(command, "--output", output, "--", job_id)
            assert result.exit_code == 1
            assert "job_id: expected 1 to 128" in result.stdout + result.stderr
    assert service.emulator.arrivals == []


# cancel


def test_jobs_are_cancelled(service: Service) -> None:
    """Each is told, whatever becomes of the others."""
    for job_id in ("one", "two"):
        running(service, job_id)
    result = service.run("cancel", "one", "gone", "two")
    assert result.exit_code == 1
    told = parsed(result)
    assert [(line["kind"], line["job_id"]) for line in told] == [
        ("cancelled", "one"),
        ("error", "gone"),
        ("cancelled", "two"),
    ]
    assert told[0]["state"] == "Cancelled"
    jobs = service.emulator.jobs.values()
    assert {job.state(service.clock.seconds) for job in jobs} == {JobState.CANCELLED}


def test_a_cancellation_for_people(service: Service) -> None:
    """Job, state and request; cancelling twice is no error."""
    running(service, "av1")
    for _ in range(2):
        result = service.run("cancel", "av1", "--output", "table")
        assert (result.exit_code, result.stderr) == (0, "")
        lines = [line.split() for line in result.stdout.splitlines()]
        assert lines[:2] == [["job", "av1"], ["state", "Cancelled"]]
        assert lines[2][0] == "request"


# wait


def test_a_job_is_waited_for(service: Service) -> None:
    """It is asked until it has ended, and shown as it is then."""
    running(service, "av1", script=[frame(1)])
    service.emulator.inject(Fault.error(503), times=1)

    class Moving(list[Arrival]):
        """Arrivals that let the stream end when the third request comes."""

        def append(self, arrival: Arrival) -> None:
            super().append(arrival)
            if len(self) == 3:
                service.clock.seconds = 2000

    service.emulator.arrivals = Moving()
    result = service.run("wait", "av1", "--interval", "0.05")
    assert result.exit_code == 0
    assert result.stderr == "waiting for av1 to end\n"
    (job,) = parsed(result)
    assert (job["kind"], job["state"]) == ("job", "Success")
    assert statuses(service) == [503, 200, 200]


def test_on_a_terminal_it_is_shown_that_there_is_something_to_wait_for(service: Service) -> None:
    """A line that moves, with the id as it is."""
    service.emulator.add_job("av1", duration=0)
    result = service.run("wait", "av1", FORCE_COLOR="1", TERM="xterm-256color")
    assert result.exit_code == 0
    assert "waiting for av1 to end" in result.stderr
    assert "\x1b[?25l" in result.stderr
    assert "\x1b" not in result.stdout
    # What looks like markup is none.
    for job_id in ("[/red]", "[red]x"):
        result = service.run("wait", job_id, FORCE_COLOR="1", TERM="xterm-256color")
        assert result.exit_code == 1
        assert f"got '{job_id}'" in result.stderr


def test_waiting_for_a_job_that_fails(service: Service) -> None:
    """It is shown, and it is an error."""
    service.emulator.add_job("broken", duration=0, failure=("DownloadFailed", "unreadable"))
    result = service.run("wait", "broken")
    assert result.exit_code == 1
    (job,) = parsed(result)
    assert job["state"] == "Failed"
    assert re.search(r"(?m)^error: .*DownloadFailed", result.stderr)


def test_waiting_for_a_job_that_is_flagged(service: Service) -> None:
    """Whatever else happens to it: it ends, fails, or does not end in time."""
    bad = [frame(0, "Porn")]
    service.emulator.add_job("ended", duration=0, script=bad)
    service.emulator.add_job("broken", duration=0, script=bad, failure=("DownloadFailed", ""))
    running(service, "running")
    for job_id in ("ended", "broken", "running"):
        result = service.run("wait", job_id, "--interval", "0.05", "--timeout", "0.3")
        assert result.exit_code == 3
        (job,) = parsed(result)
        assert (job["job_id"], job["label"]) == (job_id, "Porn")


def test_waiting_for_so_long(service: Service) -> None:
    """A job that does not end in time is shown as it was."""
    running(service, "av1", script=[frame(1)], duration=math.inf)
    result = service.run("wait", "av1", "--interval", "0.05", "--timeout", "0.3", "-o", "table")
    assert result.exit_code == 4
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[:2] == [["job", "av1"], ["state", "Auditing"]]
    assert re.search(r"error: .*not ended within 0.3 s", result.stderr)


def test_waiting_without_any_answer(service: Service) -> None:
    """There is nothing to show but the error."""
    running(service, "av1")
    service.emulator.inject(Fault.throttle())
    result = service.run("wait", "av1", "--timeout", "0.3", "--attempts", "1")
    assert (result.exit_code, result.stdout) == (4, "")
    assert "error: wait of av1: " in result.stderr


def test_waiting_for_a_job_that_does_not_exist(service: Service) -> None:
    """That is known at once."""
    result = service.run("wait", "gone")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "error: query of gone: 404" in result.stderr
    assert statuses(service) == [404]


# watch


def test_findings_are_shown_as_lines(service: Service) -> None:
    """States, and what is not normal; the rest only if it is wished."""
    for job_id in ("one", "two"):
        service.clock.seconds = 0
        service.emulator.add_job(job_id, duration=9, script=SCRIPT)
    service.clock.seconds = 10
    result = service.run("watch", "one", "-o", "table")
    assert (result.exit_code, result.stderr) == (3, "")
    lines = [re.sub(r" \d{13} ", " TIME ", line).split() for line in result.stdout.splitlines()]
    assert lines == [
        ["one", "Snapshot", "TIME", "Sensitive", "Porn"],
        ["one", "AudioSection", "TIME", "Sensitive", "Ads", "buy", "now"],
        ["one", "Success"],
    ]
    everything = service.run("watch", "two", "-o", "table", "--all").stdout.splitlines()
    assert len(everything) == 5
    assert sum("Normal" in line for line in everything) == 2


def test_findings_are_shown_as_json(service: Service) -> None:
    """The same, with all that is known."""
    service.emulator.add_job("av1", duration=9, script=SCRIPT)
    service.clock.seconds = 10
    result = service.run("watch", "av1")
    assert result.exit_code == 3
    findings = parsed(result)
    for finding in findings:
        assert finding.keys() == {
            *("schema", "kind", "job_id", "verdict", "snapshot", "audio_section", "state", "error"),
            *("label", "time"),
        }
        assert (finding["schema"], finding["kind"], finding["job_id"]) == (1, "finding", "av1")
    assert [finding["verdict"] for finding in findings] == [1, 1, None]
    assert findings[0]["snapshot"]["scenes"]["Porn"]["score"] == 98
    assert findings[1]["audio_section"]["text"] == "buy now"
    assert findings[2]["state"] == "Success"


def test_findings_of_a_job_that_is_judged_as_a_whole(service: Service) -> None:
    """Suspected is flagged, too, and has a line."""
    script = [frame(0, "Ads", result=Verdict.SUSPECTED)]
    service.emulator.add_job("av1", duration=0, script=script)
    result = service.run("watch", "av1", "-o", "table")
    assert result.exit_code == 3
    assert "Suspected  Ads" in result.stdout


def test_a_sensitive_stream_is_stopped_if_that_is_wished(service: Service) -> None:
    """Once, as soon as it is known; a suspected one goes on."""
    for job_id in ("bad", "worse"):
        running(service, job_id)
    doubtful = [frame(2, "Porn", result=Verdict.SUSPECTED)]
    running(service, "doubtful", script=doubtful)
    arguments = ("bad", "worse", "doubtful", "--interval", "0.05", "--timeout", "1")
    result = service.run("watch", *arguments, "--cancel")
    assert result.exit_code == 3
    jobs = service.emulator.jobs
    assert {name for name, job in jobs.items() if job.cancelled is not None} == {"bad", "worse"}
    cancels = [one.path for one in service.emulator.arrivals if one.method == "POST"]
    assert sorted(cancels) == ["/video/cancel_auditing/bad", "/video/cancel_auditing/worse"]
    ends = {line["job_id"]: line["state"] for line in parsed(result) if line["state"]}
    assert ends == {"bad": "Cancelled", "worse": "Cancelled", "doubtful": "Auditing"}


def test_a_stream_that_has_ended_is_not_stopped(service: Service) -> None:
    """There is nothing to stop, and the service would refuse."""
    service.emulator.add_job("ended", duration=0, script=[frame(0, "Porn")])
    result = service.run("watch", "ended", "--cancel")
    assert (result.exit_code, result.stderr) == (3, "")
    assert {one.method for one in service.emulator.arrivals} == {"GET"}


def test_nothing_is_stopped_unasked(service: Service) -> None:
    """To watch is to look on."""
    running(service, "bad")
    result = service.run("watch", "bad", "--interval", "0.05", "--timeout", "0.3")
    assert result.exit_code == 3
    assert {one.method for one in service.emulator.arrivals} == {"GET"}


def test_a_stream_that_cannot_be_stopped_is_tried_again(service: Service) -> None:
    """It is told, and the next finding is another chance."""
    running(service, "bad")
    service.emulator.inject(Fault.error(), operation="cancel", times=1)
    arguments = ("bad", "--cancel", "--interval", "0.05", "--attempts", "1", "--timeout", "30")
    result = service.run("watch", *arguments)
    assert result.exit_code == 3
    assert re.search(r"(?m)^error: cancel of bad: 500 InternalError", result.stderr)
    assert parsed(result)[-1]["state"] == "Cancelled"
    assert [one.status for one in service.emulator.arrivals if one.method == "POST"] == [500, 200]


def test_an_error_of_one_job_does_not_end_the_others(service: Service) -> None:
    """It is a finding."""
    service.emulator.add_job("clean", duration=0)
    result = service.run("watch", "gone", "clean")
    assert result.exit_code == 1
    lines = {line["job_id"]: line for line in parsed(result)}
    assert lines["gone"]["error"]["error"] == "JobNotFound"
    assert lines["clean"]["state"] == "Success"
    table = service.run("watch", "gone", "clean", "-o", "table")
    assert re.search(r"(?m)^gone  error: query of gone: 404", table.stdout)


def test_a_job_that_fails_while_it_is_watched(service: Service) -> None:
    """It is shown as every end is, and it is no success."""
    service.emulator.add_job("broken", duration=0, failure=("DownloadFailed", "unreadable"))
    result = service.run("watch", "broken", "-o", "table")
    assert (result.exit_code, result.stdout) == (1, "broken  Failed\n")


def test_watching_for_so_long(service: Service) -> None:
    """What does not end in time has an exit code; an error of another job goes before."""
    running(service, "av1", script=[frame(1)])
    arguments = ("--interval", "0.05", "--timeout", "0.3")
    result = service.run("watch", "av1", *arguments)
    assert result.exit_code == 4
    assert parsed(result)[-1]["error"]["error"] == "WaitTimeout"
    assert service.run("watch", "av1", "gone", *arguments).exit_code == 1


def test_an_endpoint_without_tls_needs_leave() -> None:
    """On another machine it is refused with the option that allows it."""
    environ = {
        "CI_LIVE_AUDIT_BUCKET": "examplebucket-1250000000",
        "TENCENTCLOUD_REGION": "ap-beijing",
        "CI_LIVE_AUDIT_ENDPOINT": "http://emulator:8080",
    }
    refused = run("query", "av1", "--dry-run", **environ)
    assert (refused.exit_code, "--allow-http" in refused.stderr) == (1, True)
    allowed = run("query", "av1", "--dry-run", "--allow-http", **environ)
    assert allowed.exit_code == 0
    assert allowed.stderr.startswith("GET http://emulator:8080/video/auditing/av1")
