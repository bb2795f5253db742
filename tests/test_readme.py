"""The README is the manual: its examples run, and everything it refers to exists."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import attrs
import httpx
import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

import ci_live_audit
from ci_live_audit import callbacks, errors, redis, report, telemetry, testing
from ci_live_audit.cli.commands import cli
from ci_live_audit.cli.output import Exit
from ci_live_audit.testing import Emulator, Fault, VirtualTimeLoop, frame

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
TEXT = README.read_text("utf-8")
BLOCKS = list(Sybil(parsers=[PythonCodeBlockParser()]).parse(README))
# Two of them are files of tests for the bot of another one: by anyio's plugin, by pytest-asyncio.
OF_THE_BOT = "from bot import"
EXAMPLES = [block for block in BLOCKS if OF_THE_BOT not in str(block.parsed)]
for one in BLOCKS:
    one.namespace["__name__"] = "__main__"  # as of a program
BY_ANYIO, BY_PYTEST_ASYNCIO = (str(one.parsed) for one in BLOCKS if one not in EXAMPLES)


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Emulator:
    """Return the service behind the examples, whose minutes pass at once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CALLBACK_SECRET", "a secret of 32 bytes, for a test")
    monkeypatch.setenv("OLD_CALLBACK_SECRET", "the one that it has replaced")
    emulator = Emulator()
    emulator.add_stream(
        "rtmp://live.example.com/app/room7", duration=60, script=[frame(25, "Porn")]
    )
    for number in range(20):
        emulator.add_job(f"av{number:032x}" if number else None, duration=number)
    http = httpx.AsyncClient(transport=httpx.ASGITransport(emulator))
    reaching = partial(
        ci_live_audit.LiveAuditClient, http_client=http, credentials=emulator.credentials
    )
    monkeypatch.setattr(ci_live_audit, "LiveAuditClient", reaching)

    def run(main: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(main)

    monkeypatch.setattr(asyncio, "run", run)
    return emulator


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"line {example.line}")
def test_the_example_runs(
    example: Any, emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every Python block of the README is a whole program that does what it says."""
    example.evaluate()
    assert {arrival.status for arrival in emulator.arrivals} <= {200, 404}


def test_the_first_example_cancels_what_is_bad(
    emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """The example on the first screen stops a stream as soon as it shows something bad."""
    EXAMPLES[0].evaluate()
    printed = capsys.readouterr().out
    (shown,) = re.findall(r"(?ms)^```\n(Submitted\n.*?)^```", TEXT)
    at = re.compile(r"(?<=Porn at )[\d-]{10} [\d:.]+\+00:00$", re.MULTILINE)
    assert at.sub("…", printed) == at.sub("…", shown)


def test_there_are_examples() -> None:
    """The parser finds the blocks at all."""
    assert len(BLOCKS) == TEXT.count("```python\n") >= 11
    assert len(BLOCKS) == len(EXAMPLES) + 2


def example(word: str) -> Any:
    """Return the one example that contains a word."""
    (found,) = [one for one in EXAMPLES if word in str(one.parsed)]
    return found


def test_the_bot_stops_what_is_bad(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """The bad stream is cancelled, and the other runs to its end."""
    example("async def rooms").evaluate()
    assert capsys.readouterr().out == "rtmp://live.example.com/app/room7: Porn\n"
    jobs = {job.url: job for job in emulator.jobs.values() if job.url is not None}
    assert jobs["rtmp://live.example.com/app/room7"].cancelled is not None
    assert jobs["rtmp://live.example.com/app/room8"].cancelled is None


async def test_the_service_answers(emulator: Emulator) -> None:
    """The application queries with one client for all requests, and says what does not exist."""
    block = example("FastAPI(lifespan=lifespan)")
    block.evaluate()
    app = block.namespace["app"]
    job_id = emulator.add_job(duration=1)
    async with app.router.lifespan_context(app) as state, _browser(app, state) as http:
        found = await http.get(f"/jobs/{job_id}")
        lost = await http.get("/jobs/nobody")
        arrived = len(emulator.arrivals)
        typos = [
            await http.get(f"/jobs/{typo}") for typo in ("a%20b", "%E6%88%BF", "%00", 200 * "a")
        ]
        assert len(emulator.arrivals) == arrived
        emulator.inject(Fault.error(503), times=4)
        down = await http.get(f"/jobs/{job_id}")
        emulator.credentials = ci_live_audit.Credentials("AKIDEXAMPLE", "another")
        denied = await http.get(f"/jobs/{job_id}")
    assert [(typo.status_code, typo.json()["error"]) for typo in typos] == 4 * [
        (422, "InvalidInput")
    ]
    assert (denied.status_code, denied.json()["error"]) == (502, "AccessDenied")
    assert (found.status_code, found.json()["job_id"]) == (200, job_id)
    assert (lost.status_code, lost.json()["error"]) == (404, "JobNotFound")
    assert (down.status_code, down.json()["error"]) == (503, "ServiceUnavailable")


def _browser(app: Any, state: Any) -> httpx.AsyncClient:
    """Return a client of an application, with the state of its lifespan in every request."""

    async def called(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "state": dict(state)}, receive, send)

    return httpx.AsyncClient(transport=httpx.ASGITransport(called), base_url="http://a")


def test_every_night_resumes(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """A second run of the program polls nothing that was closed."""
    block = example("night.checkpoint")
    block.evaluate()
    lines = Path("night.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 20
    asked = len(emulator.arrivals)
    block.evaluate()
    assert len(emulator.arrivals) == asked
    assert Path("night.jsonl").read_text("utf-8").splitlines() == lines


@pytest.mark.parametrize("tests", [BY_ANYIO, BY_PYTEST_ASYNCIO], ids=["anyio", "pytest-asyncio"])
def test_the_tests_of_the_bot_pass(tmp_path: Path, tests: str) -> None:
    """Both files of tests pass in a project of their own, where warnings are errors."""
    bot = str(example("async def rooms").parsed)
    # pytest-asyncio warns if the configuration is silent about the scope of fixtures' loops.
    ini = "[pytest]\nfilterwarnings = error\nasyncio_default_fixture_loop_scope = function\n"
    (tmp_path / "pytest.ini").write_text(ini)
    (tmp_path / "bot.py").write_text(bot, "utf-8")
    (tmp_path / "test_bot.py").write_text(tests, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"{tests.count('async def test_')} passed" in done.stdout, done.stdout


def test_every_command_and_option_it_names_exists() -> None:
    """The command line has what the manual says, and the manual names every command."""
    named = re.findall(r"ci-live-audit ([a-z]+)([^\n`]*)", TEXT)
    assert {name for name, _ in named} == set(cli.commands)
    for name, rest in named:
        options = {text for option in cli.commands[name].params for text in option.opts}
        assert set(re.findall(r" (--[a-z-]+)", rest.partition("#")[0])) <= options
    variables = set(re.findall(r"CI_LIVE_AUDIT_[A-Z_]+\b", TEXT))
    known = {option.envvar for command in cli.commands.values() for option in command.params} | {
        "CI_LIVE_AUDIT_COMPLETE"
    }
    assert {name for name in variables if not name.endswith("_")} <= known


# What installs, runs for ever or has a test of its own that takes its time.
ELSEWHERE = (
    "pip ",
    "export ",
    "ci-live-audit demo",
    "ci-live-audit emulate",
    "ci-live-audit listen",
)


@pytest.mark.timeout(180)  # nine processes, at the same time
def test_the_commands_of_the_manual_run(tmp_path: Path) -> None:
    """The commands run in a shell, with the bucket served by an emulator."""
    section = TEXT.partition("## The command line")[2]
    block = section.partition("```console")[2].partition("```")[0]
    lines = [line.removeprefix("$ ").partition("#")[0].strip() for line in block.splitlines()]
    commands = [line for line in lines if line and not line.startswith(ELSEWHERE)]
    emulator = Emulator()
    job_id = emulator.add_job(duration=0.001)
    (tmp_path / "ids.txt").write_text(f"{job_id}\n")
    (tmp_path / "rooms.txt").write_text("rtmp://live.example.com/app/room8\n")
    emulator.add_stream("rtmp://live.example.com/app/room8", duration=0.001)
    bin_ = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{bin_}:{os.environ['PATH']}",
        "CI_LIVE_AUDIT_BUCKET": emulator.bucket,
        "TENCENTCLOUD_REGION": emulator.region,
        "TENCENTCLOUD_SECRET_ID": emulator.credentials.secret_id,
        "TENCENTCLOUD_SECRET_KEY": emulator.credentials.secret_key,
    }

    async def run(command: str, url: str) -> int:
        for shown, meant in (
            ("av\u2026", job_id),
            ("jq .label", "cat"),
            (" moderate ", " moderate --interval 1 "),
        ):
            command = command.replace(shown, meant)
        shell = await asyncio.create_subprocess_shell(
            command,
            cwd=tmp_path,
            env={**environment, "CI_LIVE_AUDIT_ENDPOINT": url},
            stdout=asyncio.subprocess.DEVNULL,
        )
        return await shell.wait()

    async def run_all() -> dict[str, int]:
        async with emulator.serve() as url:
            emulator.jobs[job_id].started = 0.0  # has ended when it is polled for the first time
            # The last one, report, needs what poll has written.
            *early, last = sorted(commands, key=lambda command: " report " in command)
            codes = await asyncio.gather(*(run(command, url) for command in early))
            return {**dict(zip(early, codes, strict=True)), last: await run(last, url)}

    codes = asyncio.run(run_all())
    assert len(codes) == 9
    # A job that has ended cannot be cancelled.
    assert {code for command, code in codes.items() if " cancel " not in command} == {0}, codes
    assert (tmp_path / "night.jsonl").read_text().count(job_id) > 0


def test_every_exit_code_is_in_its_table() -> None:
    """The codes of the manual are those of the program."""
    table = TEXT[TEXT.index("| exit code |") :].partition("\n\n")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == set(Exit)


def test_every_error_is_in_its_tree() -> None:
    """The tree of errors names each class of the module."""
    for name in errors.__all__:
        assert re.search(rf"\b{name}\b", TEXT), name


def test_every_public_name_is_in_the_manual() -> None:
    """Whoever looks for an exported name finds it."""
    modules = (ci_live_audit, testing, redis, telemetry, report, callbacks)
    names = {name for module in modules for name in vars(module)["__all__"]}
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", TEXT)] == []


def table(heading: str) -> list[list[str]]:
    """Return the cells of the rows of the table with this heading."""
    rows = TEXT.partition(f"\n{heading}\n")[2].partition("\n\n")[0].splitlines()[1:]
    assert rows
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_defaults_are_in_the_table() -> None:
    """The table of options has each option of its owners, with its default."""
    client = ci_live_audit.LiveAuditClient
    sources: dict[str, list[Callable[..., Any]]] = {
        "client": [client.__init__],
        "`RetryPolicy`": [ci_live_audit.RetryPolicy],
        "runs": [client.wait, client.as_completed, client.watch, client.moderate],
        "`moderate`": [client.moderate],
    }
    told: dict[str, set[str]] = {owner: set() for owner in sources}
    for option, owner, default, _ in table("| option | of | default | meaning |"):
        told[owner].add(option.strip("`"))
        number, _, unit = default.partition(" ")
        for function in sources[owner]:
            given = inspect.signature(function).parameters[option.strip("`")].default
            if unit == "MiB":
                assert given == int(number) * 2**20
            elif default == "its own":
                assert given is None
            else:
                assert given == ast.literal_eval(number), option
    assert told["`RetryPolicy`"] == set(inspect.signature(ci_live_audit.RetryPolicy).parameters)


def test_the_attributes_of_results_are_those_of_the_table() -> None:
    """Each name in the table of a job is an attribute of it, and none is left out but rare ones."""
    named = {
        name
        for names, _ in table("| of an `AuditJob` | is |")
        for name in re.findall(r"`(\w+)`", names)
    }
    known = {name for name in dir(ci_live_audit.AuditJob) if not name.startswith("_")}
    assert named <= known
    assert set(attrs.fields_dict(ci_live_audit.AuditJob)) - named == {
        *("type", "snapshot_count", "forbid_state", "object"),
        *("list_results", "mask_info", "ocr_hit_infos", "bucket_id", "region", "cos_headers"),
    }


def test_the_tables_have_every_error_and_every_finding() -> None:
    """Each class that can be raised for a call has its row, and each class of findings."""
    rows = table("| error | retried for you | what to do |")
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    bases = {"LiveAuditError", "ServiceError", "CredentialsError"}
    assert named == set(errors.__all__) - bases
    rows = table("| class of a finding | is |")
    assert {row[0].strip("`") for row in rows} == {
        cls.__name__ for cls in get_args(ci_live_audit.Finding)
    }


async def test_an_error_looks_as_it_is_shown(emulator: Emulator) -> None:
    """The text of an error in the manual is that of an error."""
    shown = TEXT.partition("This is what one looks like:\n\n```\n")[2].partition("\n```")[0]
    async with emulator.client() as client:
        with pytest.raises(errors.JobNotFound) as raised:
            await client.query("av0")
    text = str(raised.value).replace(f"{raised.value.request_id}", "5f2c…")
    assert shown.replace("\n", " ") == text


def test_the_emulator_prints_what_is_shown() -> None:
    """The exports of the manual are those that a client reads, with what the emulator expects."""
    shown = dict(re.findall(r"(?m)^export (\w+)=(\S+)$", TEXT))
    emulator = Emulator()
    assert shown == {
        "CI_LIVE_AUDIT_ENDPOINT": "http://127.0.0.1:8080",
        "CI_LIVE_AUDIT_BUCKET": emulator.bucket,
        "CI_LIVE_AUDIT_RATE": "20",
        "TENCENTCLOUD_REGION": emulator.region,
        "TENCENTCLOUD_SECRET_ID": emulator.credentials.secret_id,
        "TENCENTCLOUD_SECRET_KEY": emulator.credentials.secret_key,
    }


def test_every_metric_is_in_the_list() -> None:
    """The list of metrics has those of the instruments, and no others."""
    folder = ROOT / "ci_live_audit" / "telemetry"
    sources = [(folder / f"{name}.py").read_text("utf-8") for name in ("instruments", "gauges")]
    names = set(re.findall(r'"(ci_live_audit\.[\w.]+)"', "".join(sources)))
    metrics = TEXT.partition("Its metrics:")[2].partition("About them:")[0]
    named = re.findall(r"(?m)^- `([\w.]+)`", metrics)
    assert sorted(named) == sorted(names | {"http.client.request.duration"})


def test_the_policy_allows_what_is_called() -> None:
    """The policy of the manual is JSON, and has the action of each call."""
    (block,) = re.findall(r"(?ms)^ *```json\n(.*?)^ *```", TEXT)
    (statement,) = json.loads(block)["statement"]
    verbs = {"CreateAuditingJobs", "DescribeAuditingJobs", "CancelAuditingJobs"}
    assert set(statement["action"]) == {f"ci:{verb}" for verb in verbs}


def test_the_extras_bring_what_the_table_says() -> None:
    """The table of extras has each extra of the package, with what it brings."""
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    names = {"redis-py": "redis"}
    for extra, brings, _ in table("| extra | brings | for |"):
        required = metadata["project"]["optional-dependencies"].pop(extra.strip("`"))
        packages = {re.split(r"[<>=\[]", one)[0] for one in required}
        told = {names.get(name, name) for name in brings.split(", ")}
        assert told == (packages if extra != "`all`" else {"all of these"})
    assert metadata["project"]["optional-dependencies"] == {}
