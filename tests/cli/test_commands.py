"""What all commands share: help, options, the environment, exit codes, output streams."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from command_line import NO_CREDENTIALS, SCRIPT, Service, closed_port, parsed, run, serving
from terminal import PATIENCE, start

from ci_live_audit import cli
from ci_live_audit.cli.base import Command
from ci_live_audit.cli.commands import cli as commands
from ci_live_audit.cli.logs import StandardError
from ci_live_audit.credentials import chain as default_chain
from ci_live_audit.testing import Fault, frame

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
URL = "rtmp://live.example.com/app/room7"
#: Arguments for each command that calls the service.
CALLS = {
    "submit": ["submit", URL],
    "query": ["query", "av1"],
    "cancel": ["cancel", "av1"],
    "wait": ["wait", "av1"],
    "watch": ["watch", "av1"],
    "poll": ["poll", "av1"],
}


CONNECTION = ("--bucket", "examplebucket-1250000000", "--region", "ap-beijing")


@pytest.fixture
def service() -> Iterator[Service]:
    """Serve an emulator with a job of each kind."""
    with serving() as service:
        service.emulator.add_job("clean", duration=0)
        service.emulator.add_job("flagged", duration=0, script=[frame(0, "Porn")])
        service.emulator.add_job("running", duration=100)
        yield service


# Help


def test_help_lists_every_command_and_the_exit_codes() -> None:
    """--help shows a full sentence for each command, and every exit code of the README."""
    result = run("--help")
    assert result.exit_code == 0
    for name, command in commands.commands.items():
        (line,) = re.findall(rf"(?m)^  {name} +(.*)$", result.stdout)
        assert line == command.get_short_help_str(100)
        assert line.endswith(".")
        assert not line.endswith("..")
    epilog = result.stdout.partition("Exit codes:")[2]
    epilog = epilog.partition("\n\n")[0]
    codes = re.findall(r"(?m)^\| (\d+) \| \w", README)
    assert codes == ["0", "1", "2", "3", "4", "130", "141"]
    assert re.findall(r"\d+", epilog) == codes
    assert run("-h").stdout == result.stdout


@pytest.mark.parametrize("name", sorted(commands.commands))
def test_the_examples_of_a_command_are_right(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command has examples, which fit into 80 columns and are parsed without an error."""
    monkeypatch.chdir(tmp_path)
    for file in ("ids.txt", "rooms.txt", "night.jsonl"):
        (tmp_path / file).touch()
    known = {
        "CI_LIVE_AUDIT_BUCKET": "examplebucket-1250000000",
        "TENCENTCLOUD_REGION": "ap-beijing",
    }
    for variable, value in known.items():
        monkeypatch.setenv(variable, value)
    command = commands.commands[name]
    assert isinstance(command, Command)
    assert command.examples
    for example in command.examples:
        assert len(f"  ci-live-audit {example}") <= 80
        for line in f"ci-live-audit {example}".split(" | "):
            program, first, *arguments = shlex.split(re.sub(" > .*", "", line))
            assert program == "ci-live-audit"
            commands.commands[first].make_context(first, arguments)
    assert f"Examples:\n  cli {command.examples[0]}\n" in run(name, "--help").stdout


def test_options_of_the_connection_are_apart() -> None:
    """A command's own options come first; those of the connection, and of all, are apart."""
    text = run("watch", "--help").stdout
    own, connection, common = re.split(
        "(?:Connection|Common) options:", text.partition("\nOptions:")[2]
    )
    assert re.findall(r"(?m)^  (?:-., )?--([\w-]+)", own) == [
        *("file", "interval", "timeout", "all", "cancel", "checkpoint", "shared"),
        "dry-run",
        *("scene", "min-score", "urls", "utc"),
    ]
    assert re.findall(r"(?m)^  (?:-., )?--([\w-]+)", connection) == [
        *("bucket", "region", "endpoint", "allow-http", "rate", "redis", "exchange-timeout"),
        *("attempts", "output"),
    ]
    assert re.findall(r"(?m)^  (?:-., )?--([\w-]+)", common) == ["verbose", "quiet", "help"]


@pytest.mark.parametrize("name", sorted(commands.commands))
def test_the_help_of_a_command_shows_its_options(name: str) -> None:
    """Every option is listed with a help text."""
    result = run(name, "--help")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.startswith(f"Usage: cli {name} ")
    options = [one for one in commands.commands[name].params if isinstance(one, click.Option)]
    for option in options:
        assert option.help
        assert option.opts[-1] in result.stdout
        assert option.help.split()[0] in result.stdout


def test_no_option_takes_a_secret() -> None:
    """No option is named after a secret, as other users can see a process's arguments.

    One may name the file of a secret.
    """
    names = {
        name
        for command in commands.commands.values()
        for option in command.params
        for name in option.opts
    }
    names = {name for name in names if not name.endswith("-file")}
    assert not [name for name in names if re.search("secret|key|token|password", name)]


def test_the_options_of_the_readme_exist() -> None:
    """Every variable and option in the README's section on the command line exists."""
    section = README.partition("## The command line")[2].partition("\n## ")[0]
    options = [option for command in commands.commands.values() for option in command.params]
    known = {str(option.envvar) for option in options}
    written = set(re.findall(r"CI_LIVE_AUDIT_[A-Z_]+|TENCENTCLOUD_[A-Z_]+", section))
    assert written - {"CI_LIVE_AUDIT_COMPLETE"} <= known
    assert known - {"None"} <= written
    names = {name for option in options for name in option.opts}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", section)) <= names


def test_the_script_prints_its_version() -> None:
    """The console script is installed and prints its version."""
    shown = subprocess.run([SCRIPT, "--version"], check=True, capture_output=True, text=True)
    assert version("ci-live-audit") in shown.stdout
    assert shown.stderr == ""


def test_the_package_runs_as_a_module() -> None:
    """``python -m ci_live_audit`` is the script, by its name in the help too."""
    as_module = [sys.executable, "-m", "ci_live_audit", "query", "--help"]
    shown = [
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
        for command in (as_module, [SCRIPT, "query", "--help"])
    ]
    assert shown[0].replace("python -m ci_live_audit", "ci-live-audit") == shown[1]


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Restore what Ctrl-C does, which the script ignores once its command is over."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_main_runs_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry point runs the commands."""
    monkeypatch.setattr(sys, "argv", ["ci-live-audit", "--version"])
    for name in ("stdin", "stdout", "stderr"):  # restored after the test
        monkeypatch.setattr(sys, name, getattr(sys, name))
    with pytest.raises(SystemExit, match="0"):
        cli.main()


def test_help_imports_nothing_heavy() -> None:
    """Showing help imports nothing that only a running command needs."""
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
        command = [sys.executable, "-I", "-c", program, *arguments]  # only what is installed
        shown = subprocess.run(command, check=True, capture_output=True, text=True)
        loaded = set(json.loads(shown.stdout.splitlines()[-1]))
        assert "click" in loaded
        assert not loaded & {"rich", "anyio", "httpx", "httpcore", "asyncio", "attr", "uvicorn"}


def test_help_is_a_command_too() -> None:
    """`help` shows what --help shows, of all or of one command."""
    assert run("help").stdout == run("--help").stdout
    assert run("help", "watch").stdout == run("watch", "--help").stdout


# Completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_command_prints_the_completion_script(shell: str) -> None:
    """It is that of click, by the name of the script."""
    shown = run("completion", shell)
    assert shown.exit_code == 0
    assert f"_CI_LIVE_AUDIT_COMPLETE={shell}_complete" in shown.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_printed(shell: str) -> None:
    """The completion script of each shell is printed as the README says."""
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
def test_words_are_completed(words: str, completed: list[str]) -> None:
    """Commands, options and their values are completed."""
    shown = subprocess.run(
        [SCRIPT],
        env={
            **os.environ,
            "_CI_LIVE_AUDIT_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        },
        check=True,
        capture_output=True,
        text=True,
    )
    assert shown.stdout.split() == completed


# Without the extra


@pytest.mark.usefixtures("_interruptible")
def test_without_click_the_script_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without click, the script prints the pip command and fails."""
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
def test_a_missing_half_of_the_extra_is_named(missing: str, command: str) -> None:
    """A missing package of the extra is named when a command needs it."""
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
        [sys.executable, "-c", program, missing, *CALLS[command], *CONNECTION],
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
    """-v logs attempts and -vv everything, to standard error only and without secrets."""
    result = service.start(flag, "query", "clean")
    assert result.returncode == 0
    (job,) = parsed(result)
    assert job["job_id"] == "clean"
    logged = {line.split(" ")[2].partition(".")[0] for line in result.stderr.splitlines()}
    assert " query of clean, attempt 1: 200 in " in result.stderr
    assert logged == loggers or {"ci_live_audit", "httpcore", "asyncio"} <= logged
    assert service.emulator.credentials.secret_key not in result.stderr
    assert "q-signature" not in result.stderr
    assert service.start("query", "clean").stderr == ""


def test_common_flags_stand_anywhere(service: Service) -> None:
    """-v and -q count before and after the command, and add up."""
    for arguments in (["-v", "query", "clean"], ["query", "clean", "-v"], ["query", "-v", "clean"]):
        assert "query of clean, attempt 1: " in service.start(*arguments).stderr
    assert "asyncio " in service.start("-v", "query", "clean", "-v").stderr
    for arguments in (["-q", "wait", "clean"], ["wait", "clean", "--quiet"]):
        result = service.run(*arguments)
        assert (result.exit_code, result.stderr) == (0, "")
    assert service.run("wait", "clean").stderr == "waiting for clean to end\n"
    missing = service.run("wait", "missing", "-q")
    assert missing.stderr.startswith("error: ")
    assert missing.exit_code == 1


def test_a_log_is_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    """What is logged moves no cursor and sets no colour; lines stay lines."""
    StandardError().write("\u8272\x9b31m\x1b[2J\u202e\ud800\tx\ny\n")
    assert capsys.readouterr().err == "\u8272\\x9b31m\\x1b[2J\\u202e\\ud800\tx\ny\n"


def test_verbose_configures_logging(monkeypatch: pytest.MonkeyPatch, service: Service) -> None:
    """-v configures the library's logger, -vv the root logger."""
    configured: list[str] = []
    monkeypatch.setattr(
        logging.Logger, "setLevel", lambda logger, _: configured.append(logger.name)
    )
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    for flag, name in (("-v", "ci_live_audit"), ("-vv", "root")):
        configured.clear()
        assert service.run(flag, "query", "clean").exit_code == 0
        assert name in configured


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["query", "--intervall", "1"], "No such option:? '?--intervall"),
        (["watch", "--intervall", "1"], "(Did you mean|Possible options).*--all'?, '?--interval"),
        (["--xyzzy"], "No such option:? '?--xyzzy"),
    ],
)
def test_what_is_no_option_is_told(arguments: list[str], told: str) -> None:
    """In click's own words, which differ between its versions."""
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.search(told, result.stderr)


# Options


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
def test_an_option_overrides_the_environment(
    variable: str, option: str, values: list[str], shown: str
) -> None:
    """Bucket, region and endpoint come from the environment unless an option is given."""
    known: dict[str, str | None] = {
        "CI_LIVE_AUDIT_BUCKET": "examplebucket-1250000000",
        "TENCENTCLOUD_REGION": "ap-beijing",
        variable: values[0],
    }
    assert shown.format(values[0]) in run("query", "av1", "--dry-run", **known).stderr
    result = run("query", "av1", "--dry-run", option, values[1], **known)
    assert shown.format(values[1]) in result.stderr
    assert values[0] not in result.stderr


def test_the_rate_can_be_set(service: Service) -> None:
    """The rate comes from the environment unless an option is given."""
    environ = {"CI_LIVE_AUDIT_RATE": "7"}
    assert "at 7 requests" in service.run("poll", "av1", "--dry-run", **environ).stderr
    result = service.run("poll", "av1", "--dry-run", "--rate", "3", **environ)
    assert "at 3 requests" in result.stderr


def test_the_attempts_can_be_set(service: Service) -> None:
    """The number of attempts comes from the environment unless an option is given."""
    service.emulator.inject(Fault.error(503))
    environ = {"CI_LIVE_AUDIT_ATTEMPTS": "1"}
    assert service.run("query", "clean", **environ).exit_code == 1
    assert len(service.emulator.arrivals) == 1
    assert service.run("query", "clean", "--attempts", "2", **environ).exit_code == 1
    assert len(service.emulator.arrivals) == 3


def test_the_exchange_timeout_can_be_set(
    service: Service,
) -> None:
    """The exchange timeout comes from the environment unless an option is given."""
    service.emulator.inject(Fault.slow(1))
    environ = {"CI_LIVE_AUDIT_ATTEMPTS": "1", "CI_LIVE_AUDIT_EXCHANGE_TIMEOUT": "0.25"}
    result = service.run("query", "clean", **environ)
    assert (result.exit_code, "0.25 s" in result.stderr) == (1, True)
    assert service.run("query", "clean", "--exchange-timeout", "60", **environ).exit_code == 0


def test_the_output_format_can_be_set(service: Service) -> None:
    """Without a terminal the output is JSON Lines, unless a table is requested."""
    (job,) = parsed(service.run("query", "clean"))
    assert (job["schema"], job["kind"], job["job_id"]) == (1, "job", "clean")
    table = service.run("query", "clean", CI_LIVE_AUDIT_OUTPUT="table")
    assert re.search(r"(?m)^job +clean *$", table.stdout)
    assert service.run("query", "clean", "--output", "table").stdout.split()[:2] == ["job", "clean"]
    environ = {"CI_LIVE_AUDIT_OUTPUT": "table"}
    assert parsed(service.run("query", "clean", "-o", "json", **environ))
    assert parsed(service.run("query", "clean", "-o", "auto", **environ))


# Missing settings and wrong usage


@pytest.mark.parametrize("command", sorted(CALLS))
@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("CI_LIVE_AUDIT_BUCKET", "Error: bucket: pass --bucket or set CI_LIVE_AUDIT_BUCKET"),
        ("TENCENTCLOUD_REGION", "Error: region: pass --region or set TENCENTCLOUD_REGION"),
    ],
)
def test_a_missing_setting_is_named(
    service: Service, command: str, missing: str, message: str
) -> None:
    """Without a bucket or region, one line names the option and the variable."""
    for value in (None, ""):
        result = service.run(*CALLS[command], **{missing: value})
        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr.splitlines()[-1] == message
    assert service.emulator.arrivals == []


@pytest.mark.parametrize("command", sorted(CALLS))
def test_missing_credentials_are_reported_once(
    service: Service, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing credentials are reported once, however many jobs there are."""

    def nowhere(*_: object) -> str:
        raise OSError("no route to it")

    monkeypatch.setattr(default_chain, "_fetch", nowhere)
    more = [] if command in {"submit", "wait"} else ["av2", "av3"]
    result = service.run(*CALLS[command], *more, **NO_CREDENTIALS)
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
        ["wait"],
        ["poll", "--file", "/nowhere"],
        ["poll", "--file", "/"],
        ["emulate", "--port", "70000"],
        ["emulate", "--jobs", "-1"],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    """Wrong usage exits with 2 and prints to standard error only."""
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage: cli" in result.stderr


@pytest.mark.parametrize(
    ("options", "subject"),
    [
        (["--rate", "nan"], "--rate"),
        (["--rate", "0"], "--rate"),
        (["--rate", "fast"], "--rate"),
        (["--attempts", "0"], "--attempts"),
        (["--attempts", "1.5"], "--attempts"),
        (["--exchange-timeout", "inf"], "--exchange-timeout"),
        (["--timeout", "-1"], "--timeout"),
        (["--interval", "nan"], "--interval"),
        (["--bucket", "no appid"], "bucket"),
        (["--region", "a/b"], "region"),
        (["--endpoint", "ftp://example.com"], "endpoint"),
        (["--endpoint", "http://example.com"], "endpoint"),
        (["--redis", "localhost"], "redis"),
    ],
)
def test_an_invalid_value_is_wrong_usage(
    service: Service, options: list[str], subject: str
) -> None:
    """An invalid value is reported in one line that names it, and nothing is said or sent."""
    result = service.run("wait", "clean", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert subject in line
    assert "waiting for" not in result.stderr
    assert service.emulator.arrivals == []


def test_all_problems_are_told_at_once() -> None:
    """What is wrong with options, with arguments, with settings and with the environment."""
    result = run(
        *("moderate", "av0123", "--at-once", "0", "--callback-type", "both", "--interval", "x"),
        *("--timeout", "0", "--region", "beijing", "--endpoint", "me:pa55word@example.com"),
        CI_LIVE_AUDIT_RATE="fast",
        CI_LIVE_AUDIT_BUCKET=None,
    )
    assert result.exit_code == 2
    assert result.stderr.count("Usage: ") == 1
    lines = re.findall(
        r"(?m)^Error: (?:Invalid value for )?'?([^' :]+).*?; got (.*)", result.stderr
    )
    assert dict(lines) == {
        "--at-once": "0",
        "--callback-type": "'both'",
        "--interval": "'x'",
        "--timeout": "0.0",
        "--rate": "'fast'",
        "region": "'beijing'; did you mean ap-beijing?",
        "endpoint": "'…@example.com'",
    }
    assert "Error: bucket: pass --bucket or set CI_LIVE_AUDIT_BUCKET\n" in result.stderr
    assert "'[URL]...': expected a URL of hls, http, https, rtmp, but" in result.stderr
    assert "pa55word" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["statu"], "Did you mean 'query' or 'submit'?"),
        (["stop"], "Did you mean 'cancel'?"),
        (["follow", "av1"], "Did you mean 'watch'?"),
        (["list"], "The service has no call that lists jobs"),
        (["xyzzy"], "No such command 'xyzzy'.\n"),
        (["help", "xyzzy"], "No such command 'xyzzy'.\n"),
        (
            ["--region", "ap-beijing", "query", "av1"],
            "comes after their name: cli COMMAND --region …",
        ),
        (["query", "av1,av2"], "this looks like a list: pass each id as an argument of its own"),
        (["query", "rtmp://a/b"], "the URL of a stream, which submit and moderate take"),
        (["query", ""], "is a variable of the shell empty?"),
        (["query", '{"job_id": "av1"}'], "pass JSON Lines with --file, or pipe them in"),
        (["query", "ids.txt"], "to read a file, pass --file 'ids.txt'"),
        (["query", "none.txt"], "got 'none.txt'\n"),
        (["submit", "ids.txt"], "to read a file, pass --file 'ids.txt'"),
        (["submit", f"av{7:032x}"], "this looks like a job id, which query, watch and wait take"),
        (["submit", "room7"], "but it does not begin with a scheme, such as rtmp://\n"),
        (
            ["moderate", "rtmp://a.example.com/1,rtmp://a.example.com/2"],
            "expected one URL; this looks like a list: pass each URL as an argument of its own\n",
        ),
        (["report", "--from", "-", "--file", "-"], "cannot both be standard input"),
    ],
)
def test_what_may_be_meant_is_told(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake gets a hint, where there is one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ids.txt").write_text("av1\n")
    known = {
        "CI_LIVE_AUDIT_BUCKET": "examplebucket-1250000000",
        "TENCENTCLOUD_REGION": "ap-beijing",
    }
    result = run(*arguments, **known)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr


# Exit codes and errors


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["query", "clean"], 0),
        (["wait", "clean"], 0),
        (["watch", "clean"], 0),
        (["poll", "clean"], 0),
        (["query", "missing"], 1),
        (["wait", "missing"], 1),
        (["watch", "missing"], 1),
        (["poll", "missing"], 1),
        (["cancel", "clean"], 1),
        (["query"], 2),
        (["query", "flagged", "missing"], 3),
        (["wait", "flagged"], 3),
        (["watch", "flagged", "missing"], 3),
        (["poll", "flagged", "missing"], 3),
        (["wait", "running", "--timeout", "0.1"], 4),
        (["watch", "running", "--timeout", "0.1"], 4),
        (["poll", "running", "--timeout", "0.1"], 4),
    ],
)
def test_the_exit_code(service: Service, arguments: list[str], code: int) -> None:
    """Each outcome has its exit code, and no traceback."""
    result = service.run(*arguments)
    assert result.exit_code == code
    assert "Traceback" not in result.stderr


def test_the_exit_code_of_the_script(service: Service) -> None:
    """The script exits with the same codes."""
    codes = [service.start("query", id_).returncode for id_ in ("clean", "missing", "flagged")]
    assert codes == [0, 1, 3]


def test_errors_go_to_standard_error(service: Service) -> None:
    """Errors go to standard error; with JSON they are results as well."""
    result = service.run("query", "missing", "clean", "-o", "table")
    assert re.match(r"error: query of missing: 404 AuditingJobNotFound .*\n$", result.stderr)
    assert "missing" not in result.stdout
    assert "clean" in result.stdout
    error, job = parsed(service.run("query", "missing", "clean"))
    assert (error["kind"], error["job_id"], job["kind"]) == ("error", "missing", "job")
    assert error["error"]["error"] == "JobNotFound"
    assert error["error"]["status"] == 404


def test_a_refused_connection_is_one_line(service: Service) -> None:
    """A connection that is refused is reported in one line."""
    with closed_port() as endpoint:
        result = service.run("submit", URL, "--endpoint", endpoint, "--attempts", "1")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: submit: ")


# emulate


def test_emulate_reports_a_port_in_use() -> None:
    """A port in use is reported in one line."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        result = run("emulate", "--port", str(server.getsockname()[1]))
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert "is in use; port 0 (--port 0) takes a free one" in line


def test_emulate_reports_an_address_of_another_machine() -> None:
    """An address on which nothing can listen is reported in one line."""
    result = run("emulate", "--host", "203.0.113.1", "--port", "0")
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: [Errno ")
    assert "--port 0" not in line


@pytest.mark.parametrize("duration", ["nan", "inf", "0", "-5"])
def test_emulate_reports_an_invalid_duration(duration: str) -> None:
    """A duration that is not finite and above 0 is wrong usage."""
    result = run("emulate", "--port", "0", "--duration", duration)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "'--duration': expected seconds, above 0 and finite; got " in result.stderr


@pytest.mark.parametrize("arguments", [["doctor"], CALLS["poll"], CALLS["watch"], CALLS["query"]])
def test_credentials_that_never_come_hold_nobody_up(
    service: Service, tmp_path: Path, arguments: list[str]
) -> None:
    """One Ctrl-C ends a command while it reads a file of credentials that has no end."""
    path = tmp_path / ".tencentcloud" / "credentials"
    path.parent.mkdir()
    os.mkfifo(path)
    environ = {**os.environ, **service.environ, "HOME": str(tmp_path)}
    for name in NO_CREDENTIALS:
        del environ[name]
    with (
        start(
            *(SCRIPT, *arguments),
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process,
        path.open("w"),  # when it is being read
    ):
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("-", "to read standard input, pass --file -"),
        ("rtmp://user:pa55word@h/a?sign=5ecret", "this looks like the URL of a stream"),
    ],
)
def test_what_is_no_id_is_not_sent(service: Service, given: str, told: str) -> None:
    """It is told what is meant, and no password is shown."""
    result = service.run("query", given)
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.split())
    assert not {"pa55word", "5ecret"} & set(re.split(r"\W", result.stderr))
    assert service.emulator.arrivals == []


def test_a_scene_has_a_name(service: Service) -> None:
    """A filter that lets nothing pass would make every run a success."""
    result = service.run("query", "flagged", "--scene", " ")
    assert result.exit_code == 2
    assert "expected the name of a scene" in result.stderr


def test_poll_shared_may_have_no_ids_of_its_own(service: Service) -> None:
    """A process may do only what others have given."""
    result = service.run("poll", "--shared", "x", "--redis", "redis://127.0.0.1:1", "--dry-run")
    assert "no job ids" not in result.stderr
