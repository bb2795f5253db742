"""Sends a request and reads a bounded response before a deadline, even if the caller is cancelled.

Each exchange runs in a task of its own, so the caller can leave at any moment, and what a library
does about a cancellation, or fails to do, cannot hurt the caller.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import warnings
from collections.abc import AsyncGenerator, Callable

import anyio
import attrs

from ci_live_audit._checks import above_zero
from ci_live_audit._loop import deadline, running_loop
from ci_live_audit._version import __version__
from ci_live_audit.errors import ConfigurationError, LiveAuditError
from ci_live_audit.transport.body import MAX_BODY
from ci_live_audit.transport.foreign import ForeignClient, HttpClient
from ci_live_audit.transport.memory import MAX_MEMORY, Memory, Share
from ci_live_audit.transport.own import OwnConnections
from ci_live_audit.transport.state import ExchangeState
from ci_live_audit.wire.requests import Request
from ci_live_audit.wire.responses import Response

__all__ = ["MAX_CONNECTIONS", "Transport"]

MAX_CONNECTIONS = 100


class Transport:
    """Exchanges with one server.

    Args:
        base_url: Scheme, host and port.
        http_client: A client to use in place of our own connections; it is not closed here.
        max_body: Maximum bytes of a decoded body.
        max_connections: Maximum number of our own connections; further exchanges wait in order.
        max_memory: Bytes that large bodies share until they are decoded; further ones wait.

    Raises:
        ConfigurationError: An argument cannot be used.
    """

    #: Seconds that exchanges which may not be cancelled get to end by themselves on closing.
    GRACE = 1.0

    #: The loop and the process in which it was first used.
    _owner: tuple[asyncio.AbstractEventLoop, int] | None = None

    def __init__(
        self,
        base_url: str,
        http_client: HttpClient | None = None,
        max_body: int = MAX_BODY,
        max_connections: int = MAX_CONNECTIONS,
        max_memory: int = MAX_MEMORY,
    ) -> None:
        above_zero("max_body", max_body, "bytes", whole=True)
        above_zero("max_connections", max_connections, "connections", whole=True)
        above_zero("max_memory", max_memory, "bytes", whole=True)
        #: Of the bodies above 64 KB.
        self.memory: Memory = Memory(max_memory)
        self.base_url: str = base_url.rstrip("/")
        self._backend = (
            OwnConnections(self.base_url, max_body, max_connections)
            if http_client is None
            else ForeignClient(http_client, self.base_url, max_body)
        )
        self._tasks: set[asyncio.Task[Response]] = set()
        self._preparation: asyncio.Task[None] | None = None
        #: The callers that wait for it, one after the other.
        self._preparing = 0
        self._turn = asyncio.Lock()
        self._calls: set[asyncio.Timeout] = set()
        self._closed = False

    @property
    def peer(self) -> str:
        """Address that our own newest connection leads to, and its version of TLS."""
        return getattr(self._backend, "peer", "")

    def is_open(self) -> bool:
        """Return whether it has not been closed."""
        return not self._closed

    def __del__(self, warn: Callable[..., None] = warnings.warn) -> None:
        if self._owner is not None and self._backend.cancellable and not self._closed:
            text = f'the client of {self.base_url} was not closed: use "async with" or aclose()'
            warn(text, ResourceWarning, source=self)

    @contextlib.asynccontextmanager
    async def open_call(self) -> AsyncGenerator[None, None]:
        """Open the scope of one call; closing the transport cancels it.

        Raises:
            ConfigurationError: The client is closed or belongs to another event loop.
        """
        self.check_loop()
        if self._closed:
            raise ConfigurationError("this client is closed; make a new one")
        scope = asyncio.timeout(None)
        self._calls.add(scope)
        try:
            async with scope:
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            error = ConfigurationError("the client was closed during the call")
            error.may_have_happened = True  # for all that is known here
            raise error from None
        finally:
            self._calls.discard(scope)

    async def prepare(self, timeout: float) -> None:
        """Do beforehand what the first exchange needs; what fails of it, fails there.

        Args:
            timeout: Seconds that this may take.
        """
        if not self._preparing and not self._backend.must_prepare():
            return
        self._preparing += 1
        try:
            # In order: who comes when the connection is there does not overtake who waited for it.
            async with asyncio.timeout(timeout) as scope, self._turn:
                if self._preparation is None and self._backend.must_prepare():
                    scope.reschedule(None)  # this ends by itself
                    self._preparation = asyncio.create_task(self._backend.prepare(timeout))
                    self._preparation.add_done_callback(self._prepared)
                if self._preparation is not None:
                    # A caller that is cancelled does not cancel what others wait for.
                    await asyncio.wait([self._preparation])
        except TimeoutError:
            pass
        finally:
            self._preparing -= 1

    def _prepared(self, task: asyncio.Task[None]) -> None:
        self._preparation = None
        if not task.cancelled():
            task.exception()  # nobody awaits it

    async def send(
        self,
        request: Request,
        *,
        timeout: float,
        spent: float = 0.0,
        reuse: bool = True,
        share: Share | None = None,
    ) -> Response:
        """Send a request and return the response, with an ``error`` if it is not complete.

        Args:
            request: The signed request.
            timeout: Seconds to the last byte of the response; waiting for memory comes on top.
            spent: Seconds of these that have passed already, with preparing.
            reuse: Whether an idle connection will do.
            share: The memory that the body may take, for who goes on to use it.
        """
        share = share or self.memory.share()
        task = asyncio.create_task(self._exchange(request, share, timeout, spent, reuse=reuse))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            if self._backend.cancellable:
                task.cancel()
            raise
        return task.result()

    async def drop_idle(self) -> None:
        """Close our own connections that are not in use."""
        await self._backend.aclose()

    async def aclose(self) -> None:
        """End what is in progress and close our own connections.

        Raises:
            ConfigurationError: The client belongs to another event loop.
        """
        self.check_loop()
        self._closed = True
        while self._calls:
            self._calls.pop().reschedule(0)
        # In a cancelled scope of anyio every await would end at once.
        with anyio.CancelScope(shield=True):
            await asyncio.sleep(0)
            if self._tasks and not self._backend.cancellable:
                await asyncio.wait(self._tasks, timeout=self.GRACE)
            tasks = {*self._tasks, *filter(None, [self._preparation])}
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            await self.drop_idle()

    def check_loop(self) -> None:
        """Check that this is the event loop and the process the connections belong to.

        Raises:
            ConfigurationError: It is another one, or there is none.
        """
        here = running_loop(), os.getpid()
        # In one step: two threads may be here at once. A forked child inherits the loop's object.
        if vars(self).setdefault("_owner", here) != here:
            raise ConfigurationError(
                "this client belongs to another event loop or process; make one for each"
            )

    async def _exchange(
        self, request: Request, share: Share, timeout: float, spent: float, *, reuse: bool
    ) -> Response:
        """Return the response, also after an error: a task that nobody awaits must not raise."""
        own = {"accept-encoding": "identity", "user-agent": f"ci-live-audit/{__version__}"}
        request = attrs.evolve(request, headers={**request.headers, **own})
        state = ExchangeState(share)
        until = asyncio.get_running_loop().time() + timeout - spent
        when = deadline(
            until,
            # What has been sent may have been answered while the process was stopped.
            may_end=lambda: state.sent is not False,
            put_off=lambda: min(share.waited, share.until - until),
        )
        try:
            with share:
                async with when:
                    return await self._backend.exchange(
                        request, state, timeout=timeout, reuse=reuse
                    )
        except LiveAuditError as problem:
            error = problem
        except Exception as problem:  # noqa: BLE001 - there is no end to what a library may raise
            error = state.explain(problem, timeout)
        try:
            return attrs.evolve(state.head or Response(status=0), error=error)
        finally:  # or the error and this frame would keep each other alive
            del error
