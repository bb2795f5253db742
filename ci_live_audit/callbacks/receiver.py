"""`CallbackReceiver`: takes the callbacks of the service, and only those."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Self

from ci_live_audit._checks import MANY, above_zero, text
from ci_live_audit.callbacks.asgi import App, Receive, Scope, Send
from ci_live_audit.callbacks.intake import Headers, Intake, Result, read
from ci_live_audit.callbacks.tokens import SHORTEST, Tokens
from ci_live_audit.errors import ConfigurationError, DecodeError, InvalidInput
from ci_live_audit.wire import requests
from ci_live_audit.wire.callbacks import Callback
from ci_live_audit.wire.documents import MAX_JSON
from ci_live_audit.wire.endpoint import url_fault

__all__ = ["CallbackReceiver"]

logger: logging.Logger = logging.getLogger("ci_live_audit.callbacks")

MAX_BODY, AT_ONCE, TIMEOUT = MAX_JSON, 64, 10.0


class CallbackReceiver:
    """An ASGI application for callbacks, to be mounted under any path; `take` is for the others.

    Callbacks are not signed. So each URL that `url` makes has a token at its end, which only this
    secret makes: whoever does not know the URL is answered 404, before a body is read.

    It may be used by several threads, event loops and processes, which share nothing but the
    secret: each knows the duplicates of its own.

    Args:
        secret: A text or bytes, 16 bytes or more (a shorter one is used, with a warning in the
            log); or several, of which the first makes tokens and all are accepted.
        on_callback: Called with each new callback, one after another: a coroutine function on the
            event loop, another function in a thread. Nobody waits for it for more than 10 ms: while
            too many callbacks wait (16 MiB), others are answered 503, so that they are sent again.
            What it raises is logged.
        max_body: Bytes of a body.
        at_once: Bodies that are read at the same time; others are answered 503.
        timeout: Seconds in which a body has to arrive; and that `on_callback` has for what waits
            when the application ends, where a server tells that (lifespan).

    Raises:
        ConfigurationError: An argument cannot be used.
    """

    def __init__(
        self,
        secret: str | bytes | Sequence[str | bytes],
        *,
        on_callback: Callable[[Callback], Any] | None = None,
        max_body: int = MAX_BODY,
        at_once: int = AT_ONCE,
        timeout: float = TIMEOUT,
    ) -> None:
        fault = ""
        try:
            self._tokens = Tokens(secret)
        except ConfigurationError as problem:
            fault = str(problem)
        del secret  # a traceback with local variables would show it
        if fault:
            raise ConfigurationError(fault)
        if self._tokens.is_weak:
            logger.warning(
                "secret: with less than %d bytes it could be guessed; secrets.token_urlsafe(32) "
                "makes a good one",
                SHORTEST,
            )
        above_zero("max_body", max_body, "bytes", whole=True)
        above_zero("at_once", at_once, "a number of bodies", whole=True)
        above_zero("timeout", timeout, "seconds", at_most=MANY)
        if on_callback is not None and not callable(on_callback):
            raise ConfigurationError("on_callback: expected a function")
        self._max_body = max_body
        self._is_trusted = False
        self._intake = Intake(self._tokens, on_callback)
        self._app = App(self._intake, max_body=max_body, at_once=at_once, timeout=timeout)

    @property
    def is_trusted(self) -> bool:
        """Whether what callbacks say is believed, or only makes their jobs due."""
        return self._is_trusted

    @property
    def counts(self) -> dict[Result, int]:
        """How many callbacks there were, until now and in this process, with each result."""
        return dict(self._intake.counts)

    def trusted(self) -> Self:
        """Return a view of this receiver whose callbacks are believed."""
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        view._is_trusted = True
        return view

    def url(self, base: str, data_id: str | None = None) -> str:
        """Return the URL to submit as ``callback``.

        Args:
            base: Where the receiver is mounted, as the service reaches it.
            data_id: That of the stream. Callbacks about another are answered 404. Without it the
                URL is good for all streams: whoever sees it can send callbacks about any of them.

        Raises:
            InvalidInput: An argument cannot be sent.
        """
        base = text("base", base, InvalidInput)
        fault = url_fault(base, {"http", "https"})
        if fault is None and ("?" in base or "#" in base):
            fault = "it has a query or a fragment"
        if fault is not None:
            raise InvalidInput(f"base: expected a URL of http or https, but {fault}")
        requests.submit("rtmp://live.example.com", callback=base, data_id=data_id)  # or it raises
        return f"{base.rstrip('/')}/{self._tokens.sign(data_id)}"

    def take(self, path: str, headers: Headers | None, body: bytes) -> int:
        """Return the status with which a POST request is to be answered; do what it asks for.

        It can be called from any thread, and reads and waits for nothing. A body of 64 KiB takes a
        few milliseconds.

        Args:
            path: Of the request; its end suffices.
            headers: Of the request.
            body: Of the request, decompressed.

        Raises:
            InvalidInput: The path is no text, or the body no bytes.
        """
        grant = self._tokens.grant(text("path", path, InvalidInput))
        if not isinstance(body, bytes | bytearray | memoryview):
            raise InvalidInput(f"body: expected bytes, got {type(body).__name__}")
        if grant is None:
            return self._intake.count("refused", 404)
        if len(body) > self._max_body:
            return self._intake.count("refused", 413)
        try:
            callback = read(bytes(body), headers)
        except DecodeError as problem:
            return self._intake.cannot_read(problem)
        return self._intake.decide(grant, callback, len(body))

    def subscribe(self, listener: Callable[[Callback], object]) -> Callable[[], object]:
        """Call a function with each new callback from now on, on the running event loop.

        Of Simple ones duplicates count as new: they tell neither time nor state, so what the
        service says of a job later may be the same byte for byte.

        It must not block. What it raises is logged. While its event loop is blocked it may miss
        callbacks.

        Returns:
            A function that ends that.

        Raises:
            ConfigurationError: No event loop is running.
        """
        return self._intake.listeners.add(listener)

    async def join(self) -> None:
        """Wait until `on_callback` is done with all callbacks that were taken."""
        if self._intake.consumer is not None:
            await self._intake.consumer.join()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve as an ASGI application."""
        await self._app(scope, receive, send)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a CallbackReceiver is not pickled: make one with the same secret instead")
