"""Ctrl-C: what each one does, and what is left of it afterwards."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from ci_live_audit.cli import interrupts


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Restore the handler of the tests."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


class Ended(BaseException):
    """The process would have ended."""


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the end of the process raise; return the terminals on which the cursor was shown."""

    def end(code: int) -> None:
        assert code == 130
        raise Ended

    def write(descriptor: int, _: bytes) -> None:
        if descriptor == 2:
            raise OSError("the terminal has gone")
        terminals.append(descriptor)

    terminals: list[int] = []
    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(os, "isatty", lambda _: True)
    monkeypatch.setattr(os, "write", write)
    monkeypatch.setenv("TERM", "xterm")
    return terminals


def test_the_first_cancels_and_the_second_ends(shown: list[int]) -> None:
    """The first Ctrl-C cancels; the second ends the process, within the block or after it."""
    calls: list[int] = []
    with interrupts.cancelling(lambda: calls.append(1)):
        signal.raise_signal(signal.SIGINT)
        assert calls == [1]
        with pytest.raises(Ended):
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(Ended):
        signal.raise_signal(signal.SIGINT)
    assert calls == [1]
    assert shown == [1, 1]


def test_where_it_costs_the_third_ends(shown: list[int]) -> None:
    """The first Ctrl-C cancels, the second warns, the third ends the process."""
    told: list[str] = []
    with interrupts.cancelling(lambda: told.append("cancelled")):
        with interrupts.twice(lambda: told.append("warned")):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            assert told == ["cancelled", "warned"]
            with pytest.raises(Ended):
                signal.raise_signal(signal.SIGINT)
        with pytest.raises(Ended):
            signal.raise_signal(signal.SIGINT)


def test_after_what_costs_the_second_ends(shown: list[int]) -> None:
    """Outside of such a block the second Ctrl-C ends the process, also if the first was within."""
    told: list[str] = []
    with interrupts.cancelling(lambda: told.append("cancelled")):
        with interrupts.twice(list):
            pass
        with interrupts.twice(list):
            signal.raise_signal(signal.SIGINT)
        assert told == ["cancelled"]
        with pytest.raises(Ended):
            signal.raise_signal(signal.SIGINT)


def test_a_dumb_terminal_gets_no_code(shown: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A dumb terminal, and what is no terminal, gets no escape code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupts.prepare()
    monkeypatch.setenv("TERM", "dumb")
    with pytest.raises(Ended):
        signal.raise_signal(signal.SIGINT)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(os, "isatty", lambda _: False)
    with pytest.raises(Ended):
        signal.raise_signal(signal.SIGINT)
    assert shown == []


def test_without_an_interrupt_nothing_changes() -> None:
    """The handler from before the block is there after it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with interrupts.cancelling(list):
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_interrupt_stays_ignored() -> None:
    """In the background of a shell, Ctrl-C is for others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupts.prepare()
    with interrupts.cancelling(list), interrupts.twice(list):
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        signal.raise_signal(signal.SIGINT)
