"""S5: no channel shows the key, the token or the signature, whatever goes wrong.

The calls are made once over each backend, against servers that fail at every place; then the output
of each channel is searched for the secrets, also quoted, in base64, in hex and in halves.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import faulthandler
import gc
import io
import json
import logging
import os
import pickle
import re
import socket
import subprocess
import sys
import tempfile
import textwrap
import traceback
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch
from urllib.parse import quote

import attrs
import pytest
import rich.traceback
from proofs import BACKENDS
from sdk import Sdk
from servers import (
    Handler,
    Recorder,
    Served,
    answering,
    client_over,
    hanging_up,
    serving,
    silent,
)

from ci_live_audit import (
    Attempt,
    Credentials,
    CredentialsError,
    LiveAuditClient,
    LiveAuditError,
    RetryPolicy,
)
from ci_live_audit.testing.chaos import reset
from ci_live_audit.wire import signature

KEY = "canary/key+0f1e2d3c4b5a69788796"
TOKEN = "canary=token/9a8b7c6d5e4f30211203"
JOB = b"<Response><JobsDetail><JobId>a</JobId><State>Success</State></JobsDetail></Response>"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
PLACES = [
    *("none", "refusal", "throttle", "connect", "name", "tls", "send", "head", "body", "decode"),
    *("timeout", "cancellation", "provider", "closing", "hook"),
]


@cache
def spellings(secret: str) -> list[str]:
    """Return the ways to write a secret."""
    raw = secret.encode()
    halves = [secret[: len(secret) // 2], secret[len(secret) // 2 :]]
    coded = [base64.b64encode(bytes(shift) + raw)[4:-4].decode() for shift in range(3)]
    safe = [text.replace("+", "-").replace("/", "_") for text in coded]
    return [*dict.fromkeys([*halves, quote(secret, safe=""), raw.hex(), *coded, *safe])]


def shown(text: str, secrets: Iterable[str]) -> list[str]:
    """Return where a text shows secrets, with some context."""
    found: list[str] = []
    text = text.replace("x" * 1024, "")  # the padding of a body, slow to search
    for secret in secrets:
        places = [text.find(spelling) for spelling in spellings(secret)]
        found += [text[max(at - 200, 0) : at + 60] for at in places if at >= 0]
    return found


class Evidence:
    """What the channels have shown while the calls were made."""

    def __init__(self) -> None:
        self.credentials = Credentials("AKIDEXAMPLE", KEY, TOKEN)
        self.secrets: set[str] = {KEY, TOKEN}
        self.signatures = 0
        self.client: Any = None
        self.errors: dict[str, BaseException] = {}
        self.tracebacks: dict[str, str] = {}
        self.attempts: list[Attempt] = []
        self.sdk = Sdk()
        self.results: list[Any] = []
        self.stacks: list[str] = []
        self.warned: list[str] = []
        self.log = ""

    def objects(self) -> dict[str, Any]:
        """Return the objects of this package that a user or an error tracker can reach."""
        parts = [
            it
            for it in reachable(self.client)
            if type(it).__module__.startswith("ci_live_audit.") and not isinstance(it, str)
        ]
        return {
            **{f"{type(it).__name__} {at}": it for at, it in enumerate(parts)},
            **{f"attempt {at}": attempt for at, attempt in enumerate(self.attempts)},
            **{f"error of {place}": error for place, error in self.errors.items()},
            **{f"result {at}": result for at, result in enumerate(self.results)},
        }

    def assert_hidden(self, text: str, *, at_least: int = 1) -> None:
        """Assert that a text is not empty and shows no secret."""
        assert len(text) >= at_least
        assert shown(text, self.secrets) == []


def resetting() -> Handler:
    """Reset the connection when the head of the request has arrived."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, Recorder)
        await reader.inner.readuntil(b"\r\n\r\n")
        reset(writer.transport)

    return handle


def refusal(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()


HANDLERS: dict[str, Handler] = {
    "refusal": answering(refusal("SignatureDoesNotMatch"), status="403 Forbidden"),
    "throttle": answering(refusal("SlowDown"), status="429 Too Many Requests"),
    "tls": hanging_up(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "send": resetting(),
    "head": hanging_up(b"HTTP/1.1 200 OK\r\nContent-"),
    "body": hanging_up(HEAD),
    "decode": answering(b"<html>no"),
    "timeout": silent(),
    "cancellation": silent(),
    "closing": silent(),
}


def no_such_name(*_: object, **__: object) -> NoReturn:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


async def sealed_vault() -> Credentials:
    raise RuntimeError("the vault is sealed")


class Clients:
    """Makes clients over one backend, and closes them with the stack."""

    def __init__(self, backend: str, evidence: Evidence, stack: contextlib.AsyncExitStack) -> None:
        self.backend, self.evidence, self.stack = backend, evidence, stack

    async def client(self, url: str, **options: Any) -> LiveAuditClient:
        defaults: dict[str, Any] = {
            "credentials": self.evidence.credentials,
            "retry": RetryPolicy(attempts=2, base_delay=0.001),
            "timeout": 10,
            "on_attempt": [self.evidence.attempts.append, self.evidence.sdk.telemetry("all")],
        }
        client = client_over(self.backend, url, **(defaults | options))
        return await self.stack.enter_async_context(client)


async def fail_at(place: str, served: Served, clients: Clients) -> None:
    """Make a call that fails at a place."""
    url = served.url
    options: dict[str, Any] = {}
    if place == "connect":
        url = "http://127.0.0.1:1"
    elif place == "name":
        url = "http://nowhere.invalid"
    elif place == "tls":
        url = url.replace("http://", "https://")
    elif place == "provider":
        options["credentials"] = sealed_vault
    elif place == "throttle":
        options["retry"] = RetryPolicy(attempts=1)
    elif place == "hook":
        options["on_attempt"] = bad_hook
    if place in {"tls", "timeout"}:  # where the server keeps silent
        options["timeout"] = 0.1
    client = await clients.client(url, **options)
    if place == "send":
        await client.submit("rtmp://live.example.com/app/a", extra={"Filler": "x" * 2**22})
    elif place in {"cancellation", "closing"}:
        call = asyncio.create_task(client.query("a"))
        while not served.requests and not call.done():
            await asyncio.sleep(0.001)
        clients.evidence.stacks += stacks()
        await (client.aclose() if place == "closing" else asyncio.sleep(0))
        call.cancel()
        await call
    else:
        clients.evidence.results.append(await client.query("a"))


def bad_hook(attempt: Attempt) -> None:
    raise ValueError(attempt.number)


class Log(logging.StreamHandler[io.StringIO]):
    """Writes every record, and keeps the locals of exceptions."""

    def __init__(self, evidence: Evidence) -> None:
        super().__init__(io.StringIO())
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s %(args)r"))
        self.tracebacks = evidence.tracebacks

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        if record.exc_info and record.exc_info[1]:
            self.tracebacks["in the log"] = written(record.exc_info[1])


TESTS = Path(__file__).parents[1]


def stacks() -> list[str]:
    """Return how all tasks print themselves, and the locals of every frame in which they wait."""
    texts: list[str] = []
    for task in asyncio.all_tasks():
        file = io.StringIO()
        task.print_stack(file=file)
        texts += [repr(task), file.getvalue()]
        waits: Any = task.get_coro()
        while waits is not None:
            frame = getattr(waits, "cr_frame", None) or getattr(waits, "ag_frame", None)
            if frame is not None and not Path(frame.f_code.co_filename).is_relative_to(TESTS):
                texts.append(f"{frame.f_code.co_qualname} {frame.f_locals!r}")
            waits = getattr(waits, "cr_await", None) or getattr(waits, "ag_await", None)
    return texts


def written(error: BaseException) -> str:
    """Return a traceback with the locals of all frames, as Python and as rich write it."""
    frames = error.__traceback__
    while frames and frames.tb_next and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    by_python = traceback.TracebackException(type(error), error, frames, capture_locals=True)
    trace = rich.traceback.Traceback.extract(
        type(error), error, frames, show_locals=True, locals_max_string=300
    )
    nodes = [frame.locals or {} for stack in trace.stacks for frame in stack.frames]
    by_rich = [f"{name}={node}" for found in nodes for name, node in found.items()]
    return "".join(by_python.format()) + "\n".join(by_rich)


async def investigate(backend: str, evidence: Evidence) -> None:
    """Make a call that fails at each place, in asyncio's debug mode with all callbacks "slow"."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0
    async with contextlib.AsyncExitStack() as stack:
        clients = Clients(backend, evidence, stack)
        for place in PLACES:
            handler = HANDLERS.get(place, answering(JOB))
            served = await stack.enter_async_context(serving(handler))
            names = patch("socket.getaddrinfo", no_such_name)
            with names if place == "name" else contextlib.nullcontext():
                try:
                    await fail_at(place, served, clients)
                except (LiveAuditError, asyncio.CancelledError) as error:
                    evidence.errors[place] = error
                    evidence.tracebacks[place] = written(error)
            record_secrets(evidence, served)
        served = await stack.enter_async_context(serving(answering(JOB)))
        evidence.client = await clients.client(served.url)
        await evidence.client.query("a")
        evidence.stacks += stacks()


def record_secrets(evidence: Evidence, served: Served) -> None:
    """Add the signatures of the requests, and the keys that made them, to the secrets."""
    for head in served.requests:
        found = re.search(rb"q-key-time=([0-9;]+)&.*q-signature=([0-9a-f]{40})", head)
        assert found, head
        assert TOKEN.encode() in head
        evidence.signatures += 1
        evidence.secrets.add(found[2].decode())
        evidence.secrets.add(str(signature.sign_key(evidence.credentials, found[1].decode())))


@pytest.fixture(scope="module", params=BACKENDS)
def evidence(request: pytest.FixtureRequest) -> Iterator[Evidence]:
    """Return what the calls over one backend have left in the channels."""
    evidence = Evidence()
    handler = Log(evidence)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(1)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            asyncio.run(investigate(request.param, evidence))
            gc.collect()
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
    evidence.log = handler.stream.getvalue()
    evidence.warned = [f"{it} {it.source!r}" for it in caught]
    yield evidence
    # Errors keep frames alive, and frames the clients.
    evidence.errors.clear()


def reachable(start: Any) -> list[Any]:
    """Return the objects that can be reached from one by attributes and containers."""
    seen: dict[int, Any] = {}
    todo = [start]
    while todo:
        it = todo.pop()
        if id(it) in seen or isinstance(it, type | types.ModuleType | types.FunctionType):
            continue
        seen[id(it)] = it
        if isinstance(it, dict):
            todo += [*it.keys(), *it.values()]
        elif isinstance(it, list | tuple | set | frozenset):
            todo += it
        elif type(it).__module__.partition(".")[0] != "asyncio":
            todo += vars(it).values() if hasattr(it, "__dict__") else []
            for kind in type(it).__mro__:
                slots = getattr(kind, "__slots__", ())
                names = [slots] if isinstance(slots, str) else slots
                todo += [getattr(it, name) for name in names if hasattr(it, name)]
    return list(seen.values())


# The channels


def test_s05_every_place_failed_as_it_should(evidence: Evidence) -> None:
    """The search is meaningful: requests had secrets, and calls failed at every place."""
    assert set(PLACES) - set(evidence.errors) == {"none", "hook"}
    assert evidence.signatures >= 10
    assert len(evidence.secrets) >= 4
    assert "in the log" in evidence.tracebacks
    assert shown(f"x{quote(KEY)}x", evidence.secrets)
    assert shown(base64.b64encode(b"AKID:" + KEY.encode()).decode(), evidence.secrets)


def test_s05_1_repr(evidence: Evidence) -> None:
    """No ``repr`` of any object shows a secret."""
    for name, it in evidence.objects().items():
        evidence.assert_hidden(f"{name}: {it!r} {[it]} { {name: it} } {it!a}")


def test_s05_2_str_and_format(evidence: Evidence) -> None:
    """No ``str``, f-string or ``%`` of any object shows a secret."""
    for name, it in evidence.objects().items():
        evidence.assert_hidden(f"{name}: {it} {it!s} " + "{}".format(it) + "%s" % it)  # noqa: UP031, UP032


def test_s05_3_logs_of_everything(evidence: Evidence) -> None:
    """No logger writes a secret, with the root at level 1."""
    for name in ("ci_live_audit WARNING", "ci_live_audit DEBUG", "on_attempt failed"):
        assert name in evidence.log
    evidence.assert_hidden(evidence.log, at_least=5000)


def test_s05_4_logs_of_the_http_library(evidence: Evidence) -> None:
    """What the HTTP library logs about connections and requests shows no secret."""
    lines = [line for line in evidence.log.splitlines() if re.match("(httpx|httpcore)2?[. ]", line)]
    assert {"send_request_headers", "receive_response_headers"} <= {
        word.partition(".")[0] for line in lines for word in line.split()
    }
    evidence.assert_hidden("\n".join(lines), at_least=5000)


def test_s05_5_tracebacks_with_locals(evidence: Evidence) -> None:
    """The locals of all frames, as ``traceback`` and rich show them, hold no secret."""
    assert set(evidence.tracebacks) == {*evidence.errors, "in the log"}
    for place, text in evidence.tracebacks.items():
        assert "ci_live_audit" in text, place
        evidence.assert_hidden(text, at_least=500)


def test_s05_5_stacks_of_tasks(evidence: Evidence) -> None:
    """Neither the stacks of tasks in the middle of a call nor their locals show a secret."""
    text = "\n".join(evidence.stacks)
    assert "Caller.call" in text or "send" in text
    evidence.assert_hidden(text, at_least=1000)


def test_s05_5_a_dump_of_faulthandler(evidence: Evidence) -> None:
    """A traceback that faulthandler dumps shows no secret."""
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file)
        file.seek(0)
        evidence.assert_hidden(file.read())


def test_s05_6_warnings(evidence: Evidence) -> None:
    """No warning shows a secret."""
    evidence.assert_hidden("\n".join(["warned:", *evidence.warned]))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_s05_7_pickles(evidence: Evidence, protocol: int) -> None:
    """No pickle of any object holds a secret."""
    for name, it in evidence.objects().items():
        try:
            pickled = pickle.dumps(it, protocol)
        except Exception as error:
            evidence.assert_hidden(f"{error!r} {error}")
            assert not name.startswith(("result", "attempt", "error")), name
        else:
            evidence.assert_hidden(pickled.decode("latin-1"))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_s05_7_copies(evidence: Evidence, duplicate: Callable[[Any], Any]) -> None:
    """No copy of any object shows a secret."""
    for name, it in evidence.objects().items():
        try:
            other = duplicate(it)
        except Exception as error:  # locks and sockets have no copies
            evidence.assert_hidden(f"{name} {error!r}")
        else:
            evidence.assert_hidden(f"{name} {other!r} {vars_of(other)!r}")


def test_s05_8_plain_forms_of_results_and_errors(evidence: Evidence) -> None:
    """``to_dict`` of results and the attributes of errors show no secret."""
    assert evidence.results
    for result in evidence.results:
        evidence.assert_hidden(json.dumps(result.to_dict(), default=str))
    for error in evidence.errors.values():
        evidence.assert_hidden(f"{vars(error)!r} {vars(error)}")


def test_s05_9_objects_taken_apart_by_attrs(evidence: Evidence) -> None:
    """``attrs.asdict`` and ``astuple`` of any reachable object, also as JSON, show no secret."""
    found = [it for it in reachable(list(evidence.objects().values())) if attrs.has(type(it))]
    assert {type(it).__name__ for it in found} >= {"Credentials", "Caller", "Attempt", "AuditJob"}
    for it in found:
        for plain in (attrs.asdict(it), attrs.astuple(it), attrs.asdict(it, recurse=False)):
            evidence.assert_hidden(repr(plain) + json.dumps(plain, default=str, skipkeys=True))


def test_s05_10_notes_arguments_and_causes(evidence: Evidence) -> None:
    """No exception in the chain of an error, and no frame that it keeps, shows a secret."""
    for error in evidence.errors.values():
        for link in chain(error):
            notes = getattr(link, "__notes__", [])
            evidence.assert_hidden(f"{link!r} {link} {link.args} {notes} {vars_of(link)}")
            evidence.assert_hidden(written(link))


def test_s05_10_causes_keep_no_frames_of_the_http_library(evidence: Evidence) -> None:
    """The causes of errors have no traceback into the HTTP library."""
    for place in ("connect", "name", "tls", "send", "head", "body", "timeout"):
        for link in chain(evidence.errors[place])[1:]:
            assert link.__traceback__ is None, (place, link)


def chain(error: BaseException) -> list[BaseException]:
    """Return an error, its causes, contexts and the members of groups."""
    links: list[BaseException] = []
    todo: list[BaseException | None] = [error]
    while todo:
        link = todo.pop()
        if link is not None and link not in links:
            links.append(link)
            todo += [link.__cause__, link.__context__]
            todo += link.exceptions if isinstance(link, BaseExceptionGroup) else []
    return links


def vars_of(it: Any) -> Any:
    return vars(it) if hasattr(it, "__dict__") else None


def test_s05_11_attempts_in_hooks(evidence: Evidence) -> None:
    """An `Attempt` shows no secret, neither as text nor taken apart."""
    assert {attempt.status for attempt in evidence.attempts} == {None, 200, 403, 429}
    for attempt in evidence.attempts:
        written_down = json.dumps(attrs.asdict(attempt), default=repr)
        evidence.assert_hidden(f"{attempt} {written_down} {vars_of(attempt.error)}")


def test_s05_16_spans_and_metrics(evidence: Evidence) -> None:
    """No span and no metric of OpenTelemetry shows a secret."""
    spans, metrics = evidence.sdk.spans(), evidence.sdk.metrics()
    assert {span.status.status_code.name for span in spans} == {"UNSET", "ERROR"}
    evidence.assert_hidden("".join(span.to_json() for span in spans), at_least=1000)
    evidence.assert_hidden("".join(metric.to_json() for metric in metrics.values()), at_least=1000)


def test_s05_14_objects_in_error_trackers(evidence: Evidence) -> None:
    """The ``repr`` of no object that can be reached from the client shows a secret."""
    found = reachable(evidence.client)
    assert len(found) > 50
    for it in found:
        evidence.assert_hidden(f"{type(it)} {it!r} {vars_of(it)!r}")


def test_s05_15_debug_mode_of_asyncio(evidence: Evidence) -> None:
    """What the debug mode logs about slow callbacks, which all are here, shows no secret."""
    lines = [line for line in evidence.log.splitlines() if line.startswith("asyncio ")]
    assert any("Executing" in line for line in lines)
    evidence.assert_hidden("\n".join(lines), at_least=5000)


# Refused values, and programs that crash


@pytest.mark.parametrize("name", ["secret_key", "token"])
def test_s05_5_a_refused_value_is_in_no_frame_of_ours(name: str) -> None:
    """A key with a line break is refused, and a traceback with locals does not show it."""
    arguments: dict[str, Any] = {"secret_key": KEY, "token": TOKEN, name: f"{KEY}\n"}
    with pytest.raises(CredentialsError) as caught:
        Credentials("AKIDEXAMPLE", **arguments)
    del arguments
    text = written(caught.value)
    assert "values.py" in text
    assert shown(text, [KEY, TOKEN]) == []


CRASH = """
import asyncio, hashlib, os, sys, traceback
import rich.traceback
from ci_live_audit import Credentials, LiveAuditClient
from ci_live_audit.cli import demo, main
from ci_live_audit.testing import emulator
from ci_live_audit.wire import signature

rich.traceback.install(show_locals=True, locals_max_string=300, width=200)
by_rich = sys.excepthook

def both(*error):
    print("".join(traceback.TracebackException(*error, capture_locals=True).format()))
    by_rich(*error)

sys.excepthook = both
key, token = os.environ["TENCENTCLOUD_SECRET_KEY"], os.environ["TENCENTCLOUD_TOKEN"]
emulator.DEFAULT_CREDENTIALS = Credentials("AKIDEXAMPLE", key, token)
del key, token
demo.STREAMS = {"broken": (0.5, []), "news": (0.5, [])}
demo.INTERVAL = 0.1
authorization = signature.authorization

def recorded(*args):
    header = authorization(*args)
    with open(os.environ["SIGNATURES"], "a") as file:
        file.write(header.rpartition("=")[2] + "\\n")
        file.write(signature.sign_key(args[4], args[5]) + "\\n")
    return header

signature.authorization = recorded
"""
WAYS: dict[str, str] = {
    "no crash": "",
    "hook": "demo.Demo._count = lambda self, attempt: 1 / 0",
    "body": "async def fail(*_): 1 / 0\ndemo.Demo._react = fail",
    "response": "from ci_live_audit.wire import results\nresults.submitted = lambda body: 1 / 0",
    "send": textwrap.dedent("""
        from ci_live_audit.transport import exchange
        exchange.Transport.send = lambda *a, **k: 1 / 0
    """),
    "canonical text": textwrap.dedent("""
        def sha1(data=b"", **options):
            if options:
                del data
                1 / 0
            return hashlib.sha1(data)
        import types
        signature.hashlib = types.SimpleNamespace(sha1=sha1)
    """),
    "forgotten": "LiveAuditClient.__aexit__ = lambda *_: asyncio.sleep(0)",
}


@pytest.mark.parametrize("way", WAYS)
def test_s05_12_13_the_command_line(way: str, tmp_path: Any) -> None:
    """The output of ``-vv`` in development mode shows no secret, whether it crashes or not."""
    signatures = tmp_path / "signatures"
    signatures.touch()
    program = CRASH + WAYS[way] + "\nsys.argv[1:] = ['-vv', 'demo']\nmain()\n"
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "always", "-c", program],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
        env={
            **os.environ,
            "TENCENTCLOUD_SECRET_ID": "AKIDEXAMPLE",
            "TENCENTCLOUD_SECRET_KEY": KEY,
            "TENCENTCLOUD_TOKEN": TOKEN,
            "SIGNATURES": str(signatures),
            "PYTHONASYNCIODEBUG": "1",
            "COLUMNS": "200",
        },
    )
    output = done.stdout + done.stderr
    output += re.sub(r"[\s│╭╮╰╯─]+", "", output)  # rich breaks lines
    secrets = [KEY, TOKEN, *signatures.read_text().split()]
    assert shown(output, secrets) == []
    assert "q-signature" not in output
    crashed = way not in {"no crash", "hook", "forgotten"}
    assert bool(done.returncode) == crashed, output[-3000:]
    assert ("─ locals ─" in output) == crashed
    assert ("httpcore" in output) == (way not in {"send", "canonical text"})
    assert len(secrets) > 2 or way == "canonical text"
    assert ("was not closed" in output) == (way == "forgotten")
