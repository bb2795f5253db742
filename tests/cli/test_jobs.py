"""`submit`, `query`, `cancel`, `wait` and `watch`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from command_line import Service, closed_port, parsed, run, serving

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
    """Add a job whose stream has run for ten seconds, and stop the clock there."""
    service.clock.seconds = 0
    service.emulator.add_job(job_id, **{"duration": 1000.0, "script": SCRIPT, **stream})
    service.clock.seconds = 10


def statuses(service: Service) -> list[int]:
    return [arrival.status for arrival in service.emulator.arrivals]


# submit


def test_a_job_is_submitted(service: Service) -> None:
    """The service has the job, and its id is printed."""
    result = service.run("submit", URL)
    assert (result.exit_code, result.stderr) == (0, "")
    (submitted,) = parsed(result)
    (job,) = service.emulator.jobs.values()
    assert job.url == URL
    assert (submitted["schema"], submitted["kind"]) == (1, "submitted")
    assert (submitted["job_id"], submitted["state"]) == (job.job_id, "Submitted")
    assert submitted.keys() == {
        *("schema", "kind", "job_id", "data_id", "creation_time", "state", "request_id"),
        *("unreadable", "extra"),
    }


def test_a_job_is_submitted_with_every_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every option of submit is sent."""
    bodies: list[bytes] = []
    handle = Emulator.__call__

    async def recording(emulator: Emulator, scope: Any, receive: Any, send: Any) -> None:
        async def recorded() -> Any:
            message = await receive()
            bodies.append(message["body"])
            return message

        await handle(emulator, scope, recorded, send)

    monkeypatch.setattr(Emulator, "__call__", recording)
    with serving() as service:
        result = service.run(
            *("submit", URL, "--biz-type", "b81d45f9", "--data-id", "room <7> & 房"),
            *("--callback", "https://example.com/cb", "--callback-type", "2"),
            *("--storage-path", "recorded/room7", "--output", "table"),
        )
        (job,) = service.emulator.jobs.values()
    assert result.exit_code == 0
    assert result.stdout.split()[:4] == ["job", job.job_id, "state", "Submitted"]
    sent = ET.fromstring(b"".join(bodies))
    assert {node.tag: node.text for node in sent.iter() if node.text} == {
        "Type": "live_video",
        "Url": URL,
        "DataId": "room <7> & 房",
        "BizType": "b81d45f9",
        "Callback": "https://example.com/cb",
        "CallbackType": "2",
        "Path": "recorded/room7",
    }


def test_a_submission_can_be_previewed(service: Service) -> None:
    """--dry-run shows the whole request, except for its signature, and sends nothing."""
    result = service.run("submit", URL, "--data-id", "one\ntwo", "--dry-run")
    assert (result.exit_code, result.stdout) == (0, "")
    head, _, body = result.stderr.partition("\n\n")
    first, *headers = head.splitlines()
    assert first == f"POST {service.url}/video/auditing"
    assert headers[-1] == "authorization: (signed when sent)"
    assert any(header.startswith("content-type: ") for header in headers)
    assert "q-sign" not in result.stderr
    assert ET.fromstring(body).findtext("Input/DataId") == "one\ntwo"
    assert service.emulator.arrivals == []


@pytest.mark.parametrize(
    "arguments", [["query", "av1", "av2"], ["cancel", "av1", "av2"], ["submit", URL]]
)
def test_a_dry_run_needs_no_credentials(arguments: list[str]) -> None:
    """--dry-run shows each request without credentials."""
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
def test_an_invalid_argument_is_not_sent(
    service: Service, arguments: list[str], dry: list[str]
) -> None:
    """An invalid argument is named in one line, also in a dry run."""
    result = service.run("submit", *arguments, *dry)
    assert (result.exit_code, result.stdout) == (2, "")
    options = "URL|--callback|--callback-type|--data-id|--biz-type"
    (line,) = re.findall(r"(?m)^Error: .*", result.stderr)
    assert re.match(rf"Error: Invalid value for '\[?({options})\]?[.]*': ", line)
    assert service.emulator.arrivals == []


def test_a_failed_submission_is_not_retried(service: Service) -> None:
    """A submission that may have arrived is not sent again."""
    service.emulator.inject(Fault.error(), operation="submit")
    result = service.run("submit", URL)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: submit: 500 InternalError")
    assert statuses(service) == [500]


# query


def test_a_job_is_shown(service: Service) -> None:
    """JSON has the whole job; a table has its facts and its flagged findings."""
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
    assert ["frames,", "audio", "3,", "1"] in lines
    assert lines[-3] == ["finding", "time", "verdict", "label", "text"]
    assert [lines[-2][0], *lines[-2][2:]] == ["Snapshot", "Sensitive", "Porn"]
    assert [lines[-1][0], *lines[-1][2:]] == ["AudioSection", "Sensitive", "Ads", "buy", "now"]


@pytest.mark.parametrize("verdict", [Verdict.SENSITIVE, Verdict.SUSPECTED])
def test_a_flagged_job_has_an_exit_code(service: Service, verdict: Verdict) -> None:
    """The exit code is 3 if any job is sensitive or suspected."""
    service.emulator.add_job("one", duration=0, script=[frame(0, "Porn", result=verdict)])
    service.emulator.add_job("two", duration=0)
    result = service.run("query", "one", "two")
    assert result.exit_code == 3
    assert [job["job_id"] for job in parsed(result)] == ["one", "two"]


def test_missing_jobs_do_not_affect_the_others(service: Service) -> None:
    """Jobs are shown and errors reported in the order of the ids."""
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


def test_a_failed_job_is_an_error(service: Service) -> None:
    """A failed job is shown, and the exit code is 1."""
    service.emulator.add_job("broken", duration=0, failure=("DownloadFailed", "unreadable"))
    result = service.run("query", "broken", "--output", "table")
    assert (result.exit_code, result.stderr) == (1, "")
    assert re.search(r"(?m)^reason +DownloadFailed unreadable *$", result.stdout)


@pytest.mark.parametrize("command", ["query", "cancel", "wait", "watch", "poll"])
def test_an_invalid_id_is_refused(service: Service, command: str) -> None:
    """An invalid id is refused without a request."""
    for job_id in ("../etc", "a b", "av1?x", "", "x" * 129, "[red]", "\udcff"):
        for output in ("table", "json"):
            result = service.run(command, "--output", output, "--", job_id)
            assert (result.exit_code, result.stdout) == (2, "")
            assert "expected 1 to 128" in result.stderr
    assert service.emulator.arrivals == []


# cancel


def test_jobs_are_cancelled(service: Service) -> None:
    """Each job is cancelled, even if another one cannot be."""
    for job_id in ("one", "two"):
        running(service, job_id)
    result = service.run("cancel", "one", "gone", "two")
    assert result.exit_code == 1
    lines = parsed(result)
    assert [(line["kind"], line["job_id"]) for line in lines] == [
        ("cancelled", "one"),
        ("error", "gone"),
        ("cancelled", "two"),
    ]
    assert lines[0]["state"] == "Cancelled"
    jobs = service.emulator.jobs.values()
    assert {job.state(service.clock.seconds) for job in jobs} == {JobState.CANCELLED}


def test_a_cancellation_as_a_table(service: Service) -> None:
    """Job, state and request are shown; cancelling twice is not an error."""
    running(service, "av1")
    for _ in range(2):
        result = service.run("cancel", "av1", "--output", "table")
        assert (result.exit_code, result.stderr) == (0, "")
        lines = [line.split() for line in result.stdout.splitlines()]
        assert lines[:2] == [["job", "av1"], ["state", "Cancelled"]]
        assert lines[2][0] == "request"


# wait


def test_a_job_is_waited_for(service: Service) -> None:
    """A job is polled until it has ended, and then shown."""
    running(service, "av1", script=[frame(1)])
    service.emulator.inject(Fault.error(503), times=1)

    class Moving(list[Arrival]):
        """Arrivals that end the stream at the third request."""

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


def test_waiting_is_shown_on_a_terminal(service: Service) -> None:
    """A terminal shows a moving status line with the id, free of markup."""
    service.emulator.add_job("av1", duration=0)
    result = service.run("wait", "av1", FORCE_COLOR="1", TERM="xterm-256color")
    assert result.exit_code == 0
    assert "waiting for av1 to end" in result.stderr
    assert "\x1b[?25l" in result.stderr
    assert "\x1b" not in result.stdout
    # Markup is not interpreted.
    for job_id in ("[/red]", "[red]x"):
        result = service.run("wait", job_id, FORCE_COLOR="1", TERM="xterm-256color")
        assert result.exit_code == 2
        assert f"got '{job_id}'" in result.stderr


def test_waiting_for_a_job_that_fails(service: Service) -> None:
    """A failed job is shown, and the exit code is 1."""
    service.emulator.add_job("broken", duration=0, failure=("DownloadFailed", "unreadable"))
    result = service.run("wait", "broken")
    assert result.exit_code == 1
    (job,) = parsed(result)
    assert job["state"] == "Failed"
    assert re.search(r"(?m)^error: .*DownloadFailed", result.stderr)


def test_waiting_for_a_flagged_job(service: Service) -> None:
    """The exit code is 3 whether the job ends, fails, or times out."""
    bad = [frame(0, "Porn")]
    service.emulator.add_job("ended", duration=0, script=bad)
    service.emulator.add_job("broken", duration=0, script=bad, failure=("DownloadFailed", ""))
    running(service, "running")
    for job_id in ("ended", "broken", "running"):
        result = service.run("wait", job_id, "--interval", "0.05", "--timeout", "0.3")
        assert result.exit_code == 3
        (job,) = parsed(result)
        assert (job["job_id"], job["label"]) == (job_id, "Porn")


def test_waiting_times_out(service: Service) -> None:
    """A job that does not end in time is shown in its last state."""
    running(service, "av1", script=[frame(1)], duration=math.inf)
    result = service.run("wait", "av1", "--interval", "0.05", "--timeout", "0.3", "-o", "table")
    assert result.exit_code == 4
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[:2] == [["job", "av1"], ["state", "Auditing"]]
    assert re.search(r"error: .*not ended within 0.3 s", result.stderr)


def test_waiting_without_a_response(service: Service) -> None:
    """If no query succeeds in time, only the error is shown."""
    running(service, "av1")
    service.emulator.inject(Fault.throttle())
    result = service.run("wait", "av1", "--timeout", "0.3", "--attempts", "1")
    assert (result.exit_code, result.stdout) == (4, "")
    assert "error: wait of av1: " in result.stderr


@pytest.mark.parametrize("attempts", ["1", "4"])
@pytest.mark.parametrize("command", ["wait", "watch", "poll"])
def test_a_service_that_is_not_reached_is_told_at_once(
    service: Service, command: str, attempts: str
) -> None:
    """It is said after the first attempt, and once, while attempts go on."""
    with closed_port() as url:
        place = f"cannot reach {url.removeprefix('http://')}: "
        options = ["--timeout", "0.3", "--endpoint", url, "--attempts", attempts]
        result = service.run(command, "av1", *options)
    assert result.exit_code == 4
    (warning,) = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert place in warning
    assert "(after 1 attempt)" in warning


def test_waiting_for_a_missing_job(service: Service) -> None:
    """A job that does not exist is reported after one query."""
    result = service.run("wait", "gone")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "error: query of gone: 404" in result.stderr
    assert statuses(service) == [404]


# watch


def test_findings_are_shown_as_lines(service: Service) -> None:
    """States and flagged findings are shown, normal ones with --all."""
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
    """Findings are printed as JSON Lines with all their fields."""
    service.emulator.add_job("av1", duration=9, script=SCRIPT)
    service.clock.seconds = 10
    result = service.run("watch", "av1")
    assert result.exit_code == 3
    findings = parsed(result)
    for finding in findings:
        assert finding.keys() == {
            *("schema", "kind", "job_id", "verdict", "snapshot", "audio_section", "state", "error"),
            *("label", "time", "key", "source", "score", "at"),
        }
        assert (finding["schema"], finding["kind"], finding["job_id"]) == (1, "finding", "av1")
    assert [finding["verdict"] for finding in findings] == [1, 1, None]
    assert findings[0]["snapshot"]["scenes"]["Porn"]["score"] == 98
    assert findings[1]["audio_section"]["text"] == "buy now"
    assert findings[2]["state"] == "Success"


def test_a_suspected_finding_is_shown(service: Service) -> None:
    """A suspected finding is shown, and the exit code is 3."""
    script = [frame(0, "Ads", result=Verdict.SUSPECTED)]
    service.emulator.add_job("av1", duration=0, script=script)
    result = service.run("watch", "av1", "-o", "table")
    assert result.exit_code == 3
    assert "Suspected  Ads" in result.stdout


def test_a_sensitive_stream_is_cancelled_on_request(service: Service) -> None:
    """With --cancel a sensitive stream is cancelled once; a suspected one goes on."""
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


def test_an_ended_stream_is_not_cancelled(service: Service) -> None:
    """A job that has ended is not cancelled."""
    service.emulator.add_job("ended", duration=0, script=[frame(0, "Porn")])
    result = service.run("watch", "ended", "--cancel")
    assert (result.exit_code, result.stderr) == (3, "")
    assert {one.method for one in service.emulator.arrivals} == {"GET"}


def test_nothing_is_cancelled_by_default(service: Service) -> None:
    """Without --cancel nothing is cancelled."""
    running(service, "bad")
    result = service.run("watch", "bad", "--interval", "0.05", "--timeout", "0.3")
    assert result.exit_code == 3
    assert {one.method for one in service.emulator.arrivals} == {"GET"}


def test_a_failed_cancellation_is_retried(service: Service) -> None:
    """A failed cancellation is reported and tried again at the next finding."""
    running(service, "bad")
    service.emulator.inject(Fault.error(), operation="cancel", times=1)
    arguments = ("bad", "--cancel", "--interval", "0.05", "--attempts", "1", "--timeout", "30")
    result = service.run("watch", *arguments)
    assert result.exit_code == 3
    assert re.search(r"(?m)^error: cancel of bad: 500 InternalError", result.stderr)
    assert parsed(result)[-1]["state"] == "Cancelled"
    assert [one.status for one in service.emulator.arrivals if one.method == "POST"] == [500, 200]


def test_an_error_of_one_job_does_not_affect_the_others(service: Service) -> None:
    """The error of one job is a finding, and the other jobs are watched on."""
    service.emulator.add_job("clean", duration=0)
    result = service.run("watch", "gone", "clean")
    assert result.exit_code == 1
    lines = {line["job_id"]: line for line in parsed(result)}
    assert lines["gone"]["error"]["error"] == "JobNotFound"
    assert lines["clean"]["state"] == "Success"
    table = service.run("watch", "gone", "clean", "-o", "table")
    assert re.search(r"(?m)^gone  error: query of gone: 404", table.stdout)


def test_watching_a_job_that_fails(service: Service) -> None:
    """A failed job is shown, and the exit code is 1."""
    service.emulator.add_job("broken", duration=0, failure=("DownloadFailed", "unreadable"))
    result = service.run("watch", "broken", "-o", "table")
    assert (result.exit_code, result.stdout) == (1, "broken  Failed\n")


def test_watching_times_out(service: Service) -> None:
    """The exit code is 4 on a timeout, unless another job has an error."""
    running(service, "av1", script=[frame(1)])
    arguments = ("--interval", "0.05", "--timeout", "0.3")
    result = service.run("watch", "av1", *arguments)
    assert result.exit_code == 4
    assert parsed(result)[-1]["error"]["error"] == "WaitTimeout"
    assert service.run("watch", "av1", "gone", *arguments).exit_code == 1


def test_a_watch_is_resumed(service: Service, tmp_path: Path) -> None:
    """Nothing that was printed is printed again, and the exit code is that of one run."""
    arguments = ("--interval", "0.05", "--timeout", "0.3", "--checkpoint", str(tmp_path / "watch"))
    running(service, "bad")
    first = service.run("watch", "bad", *arguments)
    assert (first.exit_code, len(parsed(first))) == (3, 4)
    second = service.run("watch", "bad", *arguments)
    assert (second.exit_code, [line["key"] for line in parsed(second)]) == (
        3,
        [parsed(first)[-1]["key"]],  # the timeout
    )
    service.clock.seconds = 1000
    third = service.run("watch", "bad", *arguments)
    assert (third.exit_code, [line["state"] for line in parsed(third)]) == (3, ["Success"])
    fourth = service.run("watch", "bad", "gone", *arguments)
    assert (fourth.exit_code, [line["job_id"] for line in parsed(fourth)]) == (3, ["gone"])


def test_a_resumed_watch_fails_as_one_run(service: Service, tmp_path: Path) -> None:
    """What failed before counts, though it is not told again."""
    arguments = ("--checkpoint", str(tmp_path / "watch"))
    assert service.run("watch", "gone", *arguments).exit_code == 1
    assert service.run("watch", "gone", *arguments).stdout == ""
    assert service.run("watch", "gone", *arguments).exit_code == 1


def test_an_endpoint_without_tls_must_be_allowed() -> None:
    """An endpoint without TLS on another machine needs --allow-http."""
    environ = {
        "CI_LIVE_AUDIT_BUCKET": "examplebucket-1250000000",
        "TENCENTCLOUD_REGION": "ap-beijing",
        "CI_LIVE_AUDIT_ENDPOINT": "http://emulator:8080",
    }
    refused = run("query", "av1", "--dry-run", **environ)
    assert (refused.exit_code, "--allow-http" in refused.stderr) == (2, True)
    allowed = run("query", "av1", "--dry-run", "--allow-http", **environ)
    assert allowed.exit_code == 0
    assert allowed.stderr.startswith("GET http://emulator:8080/video/auditing/av1")
