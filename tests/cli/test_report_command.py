"""`report`: jobs that are queried, and those of files, as a page."""

from __future__ import annotations

import array
import fcntl
import os
import re
import signal
import stat
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import NO_CREDENTIALS, SCRIPT, Service, run, serving
from proofs import no_file_above
from reports import stream_job

from ci_live_audit import AuditJob, JobState, Verdict
from ci_live_audit.cli.output import to_line
from ci_live_audit.report import page as pages
from ci_live_audit.testing import frame

CLEAN = AuditJob(job_id="av2", state=JobState.SUCCESS, result=Verdict.NORMAL)


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as service:
        yield service


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ended(
    service: Service, job_id: str, *labels: str, failure: tuple[str, str] | None = None
) -> str:
    """Add a job that has ended, with frames of some labels."""
    service.clock.seconds = 0
    script = [frame(1 + number, label) for number, label in enumerate(labels)]
    service.emulator.add_job(job_id, duration=5, script=script, failure=failure)
    service.clock.seconds = 10
    return job_id


def recorded(*jobs: AuditJob) -> str:
    Path("night.jsonl").write_text("".join(to_line("job", job.to_dict()) for job in jobs))
    return "night.jsonl"


def names(page: str) -> list[str]:
    return re.findall(r'<h2 id="s\d+h"><bdi>(.*?)</bdi>', page)


def test_jobs_are_queried(service: Service) -> None:
    """Each once; the worst is the first of the page, and the exit code is that of `query`."""
    clean, bad = ended(service, "av1", "Normal"), ended(service, "av2", "Normal", "Porn")
    result = service.run("report", clean, bad, clean)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == "wrote report.html: 2 streams, 1 flagged, 0 failed or not known\n"
    assert names(Path("report.html").read_text("utf-8")) == ["av2", "av1"]
    assert len(service.emulator.arrivals) == 2


def test_exit_codes(service: Service) -> None:
    """Success if all is normal; 1 if a job failed or cannot be queried; 3 if any is flagged."""
    clean = ended(service, "av1", "Normal")
    failed = ended(service, "av2", failure=("Broken", "no stream"))
    assert service.run("report", clean).exit_code == 0
    assert service.run("report", clean, failed).exit_code == 1
    result = service.run("report", clean, "av0")
    assert result.exit_code == 1
    assert "error: query of av0: 404" in result.stderr
    page = Path("report.html").read_text("utf-8")
    assert names(page) == ["av0", "av1"]
    assert "No result" in page
    bad = ended(service, "av3", "Porn")
    assert service.run("report", bad, failed, "av0").exit_code == 3


def test_files_need_no_service() -> None:
    """What other commands wrote is enough; the title is that of the page."""
    result = run(
        *("report", "--from", recorded(CLEAN, stream_job()), "-o", "night.html"),
        *("--title", "A <night>"),
        **NO_CREDENTIALS,
    )
    assert result.exit_code == 3
    page = Path("night.html").read_text("utf-8")
    assert names(page) == ["av1", "av2"]
    assert "<title>A &lt;night&gt;</title>" in page
    assert re.search(r"made <time", page)


def test_a_flagged_item_counts() -> None:
    """Even where the job has no verdict yet."""
    job = stream_job(result=None, state=JobState.AUDITING)
    assert run("report", "--from", recorded(job)).exit_code == 3


def test_a_fresh_query_comes_before_a_file(service: Service) -> None:
    """It has links that work; what can be queried no more is shown as it was recorded."""
    ended(service, "av1", "Normal")
    file = recorded(stream_job("av1"), stream_job("av9"))
    result = service.run("report", "av1", "av9", "--from", file)
    page = Path("report.html").read_text("utf-8")
    assert (result.exit_code, names(page)) == (3, ["av9", "av1"])
    assert page.count('<article class="card') == 4
    assert "query of av9: 404" in page


def test_a_pipe(service: Service) -> None:
    """What a command prints can be piped in, and the page piped on."""
    bad = ended(service, "av1", "Porn")
    printed = service.run("query", bad, "--output", "json").stdout
    result = service.run("report", "--from", "-", "-o", "-", input=printed)
    assert (result.exit_code, result.stderr) == (3, "")
    page = result.stdout_bytes.decode("utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert page.endswith("</html>")
    assert not Path("report.html").exists()


def test_the_page_is_utf_8_whatever_the_terminal() -> None:
    """Standard output of another encoding gets the page as it says it is."""
    file = recorded(stream_job(data_id="\u623f\u95f4"))
    command = [SCRIPT, "report", "--from", file, "-o", "-"]
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environ, capture_output=True, check=False)
    assert done.returncode == 3
    assert "\u623f\u95f4" in done.stdout.decode("utf-8")


def test_lines_that_cannot_be_used_are_named() -> None:
    """At most ten of them; the others make the report all the same."""
    file = Path(recorded(CLEAN))
    file.write_text(file.read_text() + "x\n" * 12)
    result = run("report", "--from", str(file))
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert lines[0] == "error: night.jsonl, line 2: this is no whole JSON"
    assert lines[10] == "error: 2 more lines cannot be used"
    assert lines[11].startswith("wrote report.html: 1 stream, 0 flagged")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["report"], 2, "standard input: no job ids there"),
        (["report", "av1", "-o", "."], 2, "is a directory"),
        (["report", "--from", "missing.jsonl"], 2, "does not exist"),
        (["report", "av1", "-o", "none/report.html"], 1, "its folder does not exist"),
        (["report", "av1", "-o", "/dev/null"], 1, "this is not a regular file; - writes to"),
    ],
)
def test_wrong_use_sends_nothing(
    service: Service, arguments: list[str], code: int, told: str
) -> None:
    """It is told before anything is read or sent, and leaves no file."""
    result = service.run(*arguments)
    assert result.exit_code == code
    assert told in result.stderr
    assert service.emulator.arrivals == []
    assert list(Path().iterdir()) == []


def test_a_report_does_not_replace_what_it_is_made_of() -> None:
    """The results stay; another file is asked for."""
    file = Path(recorded(CLEAN))
    before = file.read_bytes()
    result = run("report", "--from", str(file), "-o", f"./{file.name}")
    assert result.exit_code == 1
    assert "the results in it would be lost; pass another file" in result.stderr
    assert file.read_bytes() == before


def test_without_credentials_it_ends_at_once(service: Service) -> None:
    """They would be missing for all jobs."""
    result = service.run("report", "av1", "av2", **NO_CREDENTIALS, HOME=str(Path.cwd()))
    assert result.exit_code == 1
    assert result.stderr.count("no credentials found") == 1
    assert not Path("report.html").exists()


def test_without_the_extra(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install before anything is sent."""
    monkeypatch.setitem(sys.modules, "jinja2", None)
    pages._templates.cache_clear()
    result = service.run("report", "av1")
    told = 'error: the report needs jinja2: pip install "ci-live-audit[report]"\n'
    assert (result.exit_code, result.stderr) == (1, told)
    assert service.emulator.arrivals == []


def test_a_report_is_replaced_as_a_whole() -> None:
    """The new one is for its owner alone, or for whom the old one was; links stay links."""
    file = recorded(CLEAN)
    run("report", "--from", file)
    path = Path("report.html")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("old")
    path.chmod(0o644)
    Path("link.html").symlink_to(path)
    assert run("report", "--from", file, "-o", "link.html").exit_code == 0
    assert Path("link.html").is_symlink()
    assert path.read_text("utf-8").endswith("</html>")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert sorted(one.name for one in Path().iterdir()) == ["link.html", file, "report.html"]


def test_a_disk_that_fills_up_leaves_the_old_report() -> None:
    """The error names the file, and nothing else is left."""
    file = recorded(CLEAN)
    Path("report.html").write_text("old")
    with no_file_above(1000):
        result = run("report", "--from", file)
    assert result.exit_code == 1
    assert "report.html" in result.stderr
    assert Path("report.html").read_text() == "old"
    assert len(list(Path().iterdir())) == 2


def test_an_interrupt_ends_a_command_that_waits_for_a_pipe() -> None:
    """One is enough, and there is no report."""
    with subprocess.Popen(
        [SCRIPT, "report", "--from", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(to_line("job", CLEAN.to_dict()).encode())
        process.stdin.flush()
        # It has begun to read once the pipe is empty.
        wait_for_empty(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert not Path("report.html").exists()


def wait_for_empty(process: subprocess.Popen[bytes]) -> None:
    """Wait until a process has read all that was written to it."""
    assert process.stdin is not None
    size = array.array("i", [1])
    for _ in range(3000):
        fcntl.ioctl(process.stdin.fileno(), termios.FIONREAD, size)
        if not size[0]:
            return
        time.sleep(0.01)
    raise AssertionError("it never read its standard input")


def test_nothing_is_imported_for_other_commands() -> None:
    """Help comes without what only a report needs."""
    code = "import sys; from ci_live_audit.cli.commands import cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, check=True)
    assert not {b"jinja2", b"rich", b"ci_live_audit.report"} & {*done.stdout.split()}
