"""Who is told what a client does: functions of an `Attempt`, and observers, who are told more."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ci_live_audit.errors import ConfigurationError
from ci_live_audit.limits.limiter import RateLimiter
from ci_live_audit.retry import Attempt

if TYPE_CHECKING:
    from ci_live_audit.following.finding import Finding

__all__ = ["Audience", "Followed", "Hook", "Hooks", "Observer", "audience"]

logger: logging.Logger = logging.getLogger("ci_live_audit")

Hook: TypeAlias = Callable[[Attempt], object]
#: What ``on_attempt`` takes.
Hooks: TypeAlias = Hook | Iterable[Hook]


class Followed(Protocol):
    """What an observer sees of a run; it may be read in any thread."""

    @property
    def kind(self) -> str:
        """The method that made the run: ``"watch"``, ``"moderate"`` and the like."""
        ...

    @property
    def open(self) -> int:
        """The number of known ids without an outcome."""
        ...

    @property
    def lag(self) -> float:
        """The seconds by which the most overdue job is late."""
        ...


class Observer:
    """Is told what a client does; pass one to ``on_attempt=``, alone or with others.

    A subclass overrides what it wants to know. All methods are called on the event loop of the
    client, in the task that the event happens in, so they must not block. What they raise is logged
    and harms nothing.
    """

    def __call__(self, attempt: Attempt) -> object:
        """Note an attempt, which has ended; this is all that a function is told."""

    def call_ended(
        self, operation: str, job_id: str | None, seconds: float, error: BaseException | None
    ) -> object:
        """Note the end of a call, with all its attempts and waits.

        Args:
            operation: ``"query"``, ``"cancel"`` or ``"submit"``.
            job_id: The job, if the call has one.
            seconds: How long it took.
            error: What it raised, which may be a ``CancelledError``; None after a success.
        """

    def client_made(self, limiter: RateLimiter, is_open: Callable[[], bool]) -> object:
        """Note that a client uses a limiter, as long as ``is_open``, a method, returns True."""

    def run_began(self, run: Followed) -> object:
        """Note that a run has been entered."""

    def run_ended(self, run: Followed) -> object:
        """Note that a run has been left, in whatever way."""

    def found(self, finding: Finding) -> object:
        """Note a finding that is handed out."""


class Audience:
    """The functions that are told of attempts, and those among them that are observers."""

    def __init__(self, *hooks: Hook) -> None:
        self.hooks = hooks
        self.observers: tuple[Observer, ...] = tuple(
            hook for hook in hooks if isinstance(hook, Observer)
        )

    def attempted(self, attempt: Attempt) -> None:
        """Tell all of an attempt."""
        for hook in self.hooks:
            _tell(hook, attempt)

    def tell(self, event: str, *facts: Any) -> None:
        """Call a method of all observers."""
        for observer in self.observers:
            _tell(getattr(observer, event), *facts)


def audience(given: Audience | Hooks | None) -> Audience:
    """Return the audience that ``on_attempt`` gives.

    Raises:
        ConfigurationError: It is not a plain function, nor several.
    """
    if isinstance(given, Audience):
        return given
    if callable(given):
        given = (given,)
    elif given is not None and not isinstance(given, Iterable):
        raise ConfigurationError(
            f"on_attempt: expected a function, or several; got {type(given).__name__}"
        )
    return Audience(*map(_checked, given or ()))


def _checked(hook: Any) -> Hook:
    if not callable(hook):
        raise ConfigurationError(f"on_attempt: expected functions; got {type(hook).__name__}")
    if inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(type(hook).__call__):
        raise ConfigurationError("on_attempt: expected a plain function; nobody would await it")
    return hook  # type: ignore[no-any-return]


def _tell(hear: Callable[..., object], *facts: Any) -> None:
    try:
        hear(*facts)
    # It cannot be cancelled, so a CancelledError is its own.
    except (Exception, asyncio.CancelledError):
        logger.exception("on_attempt failed")
