"""What all commands share: help, options, the environment, exit codes, where what is printed."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from command_line import SCRIPT, Service, parsed, run, serving

from ci_live_audit import cli
from ci_live_audit.cli.commands import cli as commands
from ci_live_audit.credentials import chain as default_chain
from ci_live_audit.testing import Fault, frame

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
URL = "rtmp://live.example.com/app/room7"
#: A way to call each of the commands that talk to the service.
CALLS = {
    "submit": ["submit", URL],
    "query": ["query", "av1"],
    "cancel": ["cancel", "av1"],
    "wait": ["wait", "av1"],
    "watch": ["watch", "av1"],
    "poll": ["poll", "av1"],
}


@pytest.fixture
def service() -> Iterator[Service]:
    """A service with a job of each kind."""
    with serving() as service:
        service.emulator.add_job("clean", duration=0)
        service.emulator.add_job("flagged", duration=0, script=[frame(0, "Porn")])
        service.emulator.add_job("running", duration=100)
        yield service


# Help


def test_help_lists_every_command_and_the_exit_codes() -> None:
    """--help names each command with a whole sentence, and each code of the README's table."""
    result = run("--help")
    assert result.exit_code == 0
    for name, command in commands.commands.items():
        (line,) = re.findall(rf"(?m)^  {name} +(.*)$", result.stdout)
        assert line == command.get_short_help_str(100)
        assert line.endswith(".")
        assert not line.endswith("..")
    epilog = result.stdout.partition("Exit codes:")[2]
    codes = re.findall(r"(?m)^\| (\d+) \| \w", README)
    assert codes == ["0", "1", "2", "3", "4", "130", "141"]
    assert re.findall(r"\d+", epilog) == codes
    assert run("-h").stdout == result.stdout


@pytest.mark.parametrize("name", sorted(commands.commands))
def test_the_help_of_a_command_shows_its_options(name: str) -> None:
    """Every option is there, and says something about itself."""
    result = run(name, "--help")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.startswith(f"Usage: cli {name} ")
    options = [one for one in commands.commands[name].params if isinstance(one, click.Option)]
    for option in options:
        assert option.help
        assert option.opts[-1] in result.stdout
        assert option.help.split()[0] in result.stdout


def test_no_option_takes_a_key() -> None:
    """Other users of a machine see the options of a process."""
    names = {
        name
        for command in commands.commands.values()
        for option in command.params
        for name in option.opts
    }
    assert not [name for name in names if re.search("secret|key|token|password", name)]


def test_the_options_of_the_readme_exist() -> None:
    """Every variable and every option of its section on the command line is one of a command."""
    section = README.partition("## The command line")[2].partition("\n## ")[0]
    options = [option for command in commands.commands.values() for option in command.params]
    known = {str(option.envvar) for option in options}
    written = set(re.findall(r"CI_LIVE_AUDIT_[A-Z_]+|TENCENTCLOUD_[A-Z_]+", section))
    assert written - {"CI_LIVE_AUDIT_COMPLETE"} <= known
    assert known - {"None"} <= written
    names = {name for option in options for name in option.opts}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", section)) <= names


def test_the_script_is_installed_and_tells_its_version() -> None:
    """The console script runs."""
    shown = subprocess.run([SCRIPT, "--version"], check=True, capture_output=True, text=True)
    assert version("ci-live-audit") in shown.stdout
    assert shown.stderr == ""


def test_main_runs_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry point hands over to the commands."""
    monkeypatch.setattr(sys, "argv", ["ci-live-audit", "--version"])
    with pytest.raises(SystemExit, match="0"):
        cli.main()


def test_help_is_there_at_once() -> None:
    """What only a running command needs is not imported to show help."""
    program = textwrap.dedent("""
        import json, sys
        from ci_live_audit.cli import main
        sys.argv = ["ci-live-audit", *sys.argv[1:]]
        try:
            main()
        except SystemExit:
            print(json.dumps(sorted(sys.modules)))
    """)
    for arguments in (["--help"], ["poll", "--help"], ["--version"]):
        shown = subprocess.run(
            [sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True
        )
        loaded = set(json.loads(shown.stdout.splitlines()[-1]))
        assert "click" in loaded
        assert not loaded & {"rich", "anyio", "httpx", "httpcore", "asyncio", "attr", "uvicorn"}


# Completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_of_a_shell(shell: str) -> None:
    """It is printed as the README says, and names the command."""
    shown = subprocess.run(
        [SCRIPT],
        env={**os.environ, "_CI_LIVE_AUDIT_COMPLETE": f"{shell}_source"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert f"_CI_LIVE_AUDIT_COMPLETE={shell}_complete" in shown.stdout
    assert "ci-live-audit" in shown.stdout


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("ci-live-audit po", ["plain,poll"]),
        ("ci-live-audit query --ou", ["plain,--output"]),
        ("ci-live-audit query --output t", ["plain,table"]),
    ],
)
def test_what_is_begun_is_completed(words: str, completed: list[str]) -> None:
    """Commands, options and their values."""
    place = str(len(words.split()) - 1)
    shown = subprocess.run(
        [SCRIPT],
        env={
            **os.environ,
            "_CI_LIVE_AUDIT_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": place,
        },
        check=True,
        capture_output=True,
        text=True,
    )
    assert shown.stdout.split() == completed


# Without the extra


def test_without_the_extra_the_command_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where click is missing, the script prints the pip command and fails."""
    monkeypatch.setitem(sys.modules, "click", None)
    monkeypatch.delitem(sys.modules, "ci_live_audit.cli.commands")
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    assert capsys.readouterr() == (
        "",
        'click is missing; the command line needs: pip install "ci-live-audit[cli]"\n',
    )


@pytest.mark.parametrize("missing", ["click", "rich"])
@pytest.mark.parametrize("command", sorted(CALLS))
def test_without_half_of_the_extra(missing: str, command: str) -> None:
    """Other programs bring click along, too: what is missing is told when it is wanted."""
    program = textwrap.dedent("""
        import sys

        class Missing:
            def find_spec(self, name, path=None, target=None):
                if name == missing:
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        missing = sys.argv.pop(1)
        sys.meta_path.insert(0, Missing())
        from ci_live_audit.cli import main
        main()
    """)
    shown = subprocess.run(
        [sys.executable, "-c", program, missing, *CALLS[command]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 1
    assert shown.stderr == (
        f'{missing} is missing; the command line needs: pip install "ci-live-audit[cli]"\n'
    )


# -v


@pytest.mark.parametrize(("flag", "loggers"), [("-v", {"ci_live_audit"}), ("-vv", set())])
def test_verbose_goes_to_standard_error(service: Service, flag: str, loggers: set[str]) -> None:
    """Once for the attempts, twice for everything; standard output is as without it."""
    result = service.start(flag, "query", "clean")
    assert result.returncode == 0
    (job,) = parsed(result)
    assert job["job_id"] == "clean"
    told = {line.split(" ")[2].partition(".")[0] for line in result.stderr.splitlines()}
    assert "Attempt(operation='query'" in result.stderr
    assert told == loggers or {"ci_live_audit", "httpcore", "asyncio"} <= told
    assert service.emulator.credentials.secret_key not in result.stderr
    assert "q-signature" not in result.stderr
    assert service.start("query", "clean").stderr == ""


def test_verbose_sets_up_logging(monkeypatch: pytest.MonkeyPatch, service: Service) -> None:
    """Of this library alone, or of everything."""
    set_up: list[str] = []
    monkeypatch.setattr(logging.Logger, "setLevel", lambda logger, _: set_up.append(logger.name))
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    for flag, name in (("-v", "ci_live_audit"), ("-vv", "root")):
        set_up.clear()
        assert service.run(flag, "query", "clean").exit_code == 0
        assert name in set_up


# Where options come from


@pytest.mark.parametrize(
    ("variable", "option", "values", "shown"),
    [
        (
            "CI_LIVE_AUDIT_BUCKET",
            "--bucket",
            ["one-1250000000", "two-1250000000"],
            "https://{}.ci.ap-beijing",
        ),
        (
            "TENCENTCLOUD_REGION",
            "--region",
            ["ap-guangzhou", "ap-mumbai"],
            "examplebucket-1250000000.ci.{}.myqcloud.com",
        ),
        (
            "CI_LIVE_AUDIT_ENDPOINT",
            "--endpoint",
            ["http://127.0.0.1:1", "http://127.0.0.1:2"],
            "GET {}/video",
        ),
    ],
)
def test_the_command_line_wins_over_the_environment(
    variable: str, option: str, values: list[str], shown: str
) -> None:
    """Where requests go is taken from the environment unless an option says otherwise."""
    known: dict[str, str | None] = {
        "CI_LIVE_AUDIT_BUCKET": "examplebucket-1250000000",
        "TENCENTCLOUD_REGION": "ap-beijing",
        variable: values[0],
    }
    assert shown.format(values[0]) in run("query", "av1", "--dry-run", **known).stderr
    result = run("query", "av1", "--dry-run", option, values[1], **known)
    assert shown.format(values[1]) in result.stderr
    assert values[0] not in result.stderr


def test_the_rate_comes_from_the_environment_or_the_command_line(service: Service) -> None:
    """The plan shows which one counts."""
    environ = {"CI_LIVE_AUDIT_RATE": "7"}
    assert "at 7 requests" in service.run("poll", "av1", "--dry-run", **environ).stderr
    result = service.run("poll", "av1", "--dry-run", "--rate", "3", **environ)
    assert "at 3 requests" in result.stderr


def test_the_attempts_come_from_the_environment_or_the_command_line(service: Service) -> None:
    """So many requests come in, and no more."""
    service.emulator.inject(Fault.error(503))
    environ = {"CI_LIVE_AUDIT_ATTEMPTS": "1"}
    assert service.run("query", "clean", **environ).exit_code == 1
    assert len(service.emulator.arrivals) == 1
    assert service.run("query", "clean", "--attempts", "2", **environ).exit_code == 1
    assert len(service.emulator.arrivals) == 3


def test_the_exchange_timeout_comes_from_the_environment_or_the_command_line(
    service: Service,
) -> None:
    """An answer that takes longer is none."""
    service.emulator.inject(Fault.slow(1))
    environ = {"CI_LIVE_AUDIT_ATTEMPTS": "1", "CI_LIVE_AUDIT_EXCHANGE_TIMEOUT": "0.25"}
    result = service.run("query", "clean", **environ)
    assert (result.exit_code, "0.25 s" in result.stderr) == (1, True)
    assert service.run("query", "clean", "--exchange-timeout", "60", **environ).exit_code == 0


def test_the_output_comes_from_the_environment_or_the_command_line(service: Service) -> None:
    """JSON Lines where nobody looks, a table if it is wished."""
    (job,) = parsed(service.run("query", "clean"))
    assert (job["schema"], job["kind"], job["job_id"]) == (1, "job", "clean")
    table = service.run("query", "clean", CI_LIVE_AUDIT_OUTPUT="table")
    assert re.search(r"(?m)^job +clean *$", table.stdout)
    assert service.run("query", "clean", "--output", "table").stdout.split()[:2] == ["job", "clean"]
    environ = {"CI_LIVE_AUDIT_OUTPUT": "table"}
    assert parsed(service.run("query", "clean", "-o", "json", **environ))
    assert parsed(service.run("query", "clean", "-o", "auto", **environ))


# What is missing


@pytest.mark.parametrize("command", sorted(CALLS))
@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("CI_LIVE_AUDIT_BUCKET", "error: bucket: pass --bucket or set CI_LIVE_AUDIT_BUCKET"),
        ("TENCENTCLOUD_REGION", "error: region: pass --region or set TENCENTCLOUD_REGION"),
    ],
)
def test_a_setting_that_is_missing_is_named(
    service: Service, command: str, missing: str, told: str
) -> None:
    """One line says what to pass or to set."""
    for value in (None, ""):
        result = service.run(*CALLS[command], **{missing: value})
        assert result.exit_code == 1
        assert result.stdout == ""
        assert result.stderr.splitlines()[-1] == told
    assert service.emulator.arrivals == []


@pytest.mark.parametrize("command", sorted(CALLS))
def test_credentials_that_are_missing_are_told_once(
    service: Service, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says where they were looked for, however many jobs there are."""

    def nowhere(*_: object) -> str:
        raise OSError("no route to it")

    monkeypatch.setattr(default_chain, "_fetch", nowhere)
    more = [] if command in {"submit", "wait"} else ["av2", "av3"]
    environ = dict.fromkeys(["TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY"])
    result = service.run(*CALLS[command], *more, **environ)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.count("no credentials found") == 1
    assert service.emulator.arrivals == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["quer"],
        ["--qu"],
        ["query"],
        ["query", "av1", "--secret-key", "x"],
        ["query", "av1", "-o", "xml"],
        ["query", "av1", "--rate", "fast"],
        ["submit"],
        ["submit", URL, "--callback-type", "both"],
        ["wait", "av1", "av2"],
        ["poll", "--file", "/nowhere"],
        ["poll", "--file", "/"],
        ["emulate", "--port", "70000"],
        ["emulate", "--jobs", "-1"],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    """It has an exit code of its own, and all that is told goes to standard error."""
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage: cli" in result.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--rate", "nan"], "rate"),
        (["--rate", "0"], "rate"),
        (["--attempts", "0"], "attempts"),
        (["--exchange-timeout", "inf"], "timeout"),
        (["--bucket", "no appid"], "bucket"),
        (["--region", "a/b"], "region"),
        (["--endpoint", "ftp://example.com"], "endpoint"),
        (["--endpoint", "http://example.com"], "endpoint"),
    ],
)
def test_a_value_that_cannot_be_used_is_one_line(
    service: Service, options: list[str], told: str
) -> None:
    """The line begins with what it is about; nothing is sent."""
    result = service.run("query", "clean", *options)
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {told}: ")
    assert service.emulator.arrivals == []


# How it ends


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["query", "clean"], 0),
        (["wait", "clean"], 0),
        (["watch", "clean"], 0),
        (["poll", "clean"], 0),
        (["query", "nobody"], 1),
        (["wait", "nobody"], 1),
        (["watch", "nobody"], 1),
        (["poll", "nobody"], 1),
        (["cancel", "clean"], 1),
        (["query"], 2),
        (["query", "flagged", "nobody"], 3),
        (["wait", "flagged"], 3),
        (["watch", "flagged", "nobody"], 3),
        (["poll", "flagged", "nobody"], 3),
        (["wait", "running", "--timeout", "0.1"], 4),
        (["watch", "running", "--timeout", "0.1"], 4),
        (["poll", "running", "--timeout", "0.1"], 4),
    ],
)
def test_the_exit_code(service: Service, arguments: list[str], code: int) -> None:
    """It is the README's, and there is never a traceback."""
    result = service.run(*arguments)
    assert result.exit_code == code
    assert "Traceback" not in result.stderr


def test_the_exit_code_of_the_script(service: Service) -> None:
    """What a shell sees is the same."""
    codes = [service.start("query", job_id).returncode for job_id in ("clean", "nobody", "flagged")]
    assert codes == [0, 1, 3]


def test_errors_go_to_standard_error(service: Service) -> None:
    """What is read by a program has results only; with JSON an error is one of them."""
    result = service.run("query", "nobody", "clean", "-o", "table")
    assert re.match(r"error: query of nobody: 404 AuditingJobNotFound .*\n$", result.stderr)
    assert "nobody" not in result.stdout
    assert "clean" in result.stdout
    error, job = parsed(service.run("query", "nobody", "clean"))
    assert (error["kind"], error["job_id"], job["kind"]) == ("error", "nobody", "job")
    assert error["error"]["error"] == "JobNotFound"
    assert error["error"]["status"] == 404


def test_a_service_that_is_not_there_is_one_line(service: Service) -> None:
    """Nobody listens: no traceback, and the reason."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{bound.getsockname()[1]}"
        result = service.run("submit", URL, "--endpoint", endpoint, "--attempts", "1")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: submit: ")


# emulate


def test_a_port_that_is_taken_is_one_line() -> None:
    """The emulator says so, and fails."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        result = run("emulate", "--port", str(server.getsockname()[1]))
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert "in use" in line


@pytest.mark.parametrize("duration", ["nan", "inf", "0", "-5"])
def test_a_duration_that_is_none_is_one_line(duration: str) -> None:
    """Streams take seconds, and end."""
    result = run("emulate", "--port", "0", "--duration", duration)
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(r"error: duration: .*\n", result.stderr)
