"""A headless Chromium, driven over its DevTools protocol by pipes, which need no library.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
from daemons import program

__all__ = ["Browser", "Page", "chromium"]

SECONDS = 60.0
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-extensions", "--mute-audio", "--hide-scrollbars", "--remote-debugging-pipe"),
    "--autoplay-policy=no-user-gesture-required",
    # Nothing but this machine is there.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)
#: Collects what the policy of a page refuses; the policy does not hold for it.
WATCH = """
window.refused = [];
addEventListener("securitypolicyviolation", (event) =>
  refused.push([event.effectiveDirective, event.blockedURI, event.sample].join(" ")));
"""

#: Waits until all pictures of a page are there, and returns the middle of an element.
STILL = """async (selector) => {
  const frame = () => new Promise(requestAnimationFrame);
  while (![...document.images].every((one) => one.complete)) await frame();
  const node = document.querySelector(selector);
  for (let before; ; ) {
    node.scrollIntoView({ block: "center" });
    await frame();
    await frame();
    const box = node.getBoundingClientRect();
    const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
    if (before === `${x} ${y}`) return { x, y };
    before = `${x} ${y}`;
  }
}"""


class Browser:
    """A running Chromium; it reads commands from one named pipe and writes to another."""

    def __init__(self, folder: Path) -> None:
        # Opened both ways, a pipe waits for nobody.
        pipes = [str(folder / name) for name in ("commands", "answers")]
        for pipe in pipes:
            os.mkfifo(pipe)
        self._commands, self._answers = (os.open(pipe, os.O_RDWR) for pipe in pipes)
        self._rest = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []
        path = program("chromium")
        start = 'exec 3<"$1" 4>"$2"; shift 2; exec "$@"'
        with (folder / "output.log").open("wb") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", start, "sh", *pipes, path, *FLAGS, f"--user-data-dir={folder}/user"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "HOME": str(folder)},
            )

    def close(self) -> None:
        """Kill it with all its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(SECONDS)
        for pipe in (self._commands, self._answers):
            os.close(pipe)

    def call(self, method: str, session: str | None = None, **params: Any) -> Any:
        """Send a command and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._commands, data) :]
        while True:
            answer = self._receive()
            if answer.get("id") == message["id"]:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def wait(self, method: str, session: str) -> Any:
        """Wait for an event of a page, and return what it says."""
        while True:
            for event in self.events:
                if event["method"] == method and event.get("sessionId") == session:
                    self.events.remove(event)
                    return event["params"]
            self._receive()

    def _receive(self) -> dict[str, Any]:
        """Return the next message; keep it if it is an event."""
        until = time.monotonic() + SECONDS
        while b"\0" not in self._rest:
            assert self._process.poll() is None, "Chromium has ended"
            assert time.monotonic() < until, "Chromium says nothing"
            if select.select([self._answers], [], [], 1.0)[0]:
                self._rest += os.read(self._answers, 2**20)
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message

    @contextlib.contextmanager
    def page(self, *, width: int = 1280, height: int = 900, **media: str) -> Iterator[Page]:
        """Open an empty page with storage of its own.

        Args:
            width: Of the window, in pixels.
            height: Of the window, in pixels.
            media: Features such as ``prefers_color_scheme="dark"``; ``media="print"``.
        """
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)
        session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = Page(self, session["sessionId"], context)
        for domain in ("Page", "Runtime", "Network"):
            page.call(f"{domain}.enable")
        page.call("Performance.enable", timeDomain="threadTicks")
        page.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        page.call("Emulation.setTimezoneOverride", timezoneId="Asia/Shanghai")
        page.emulate(**media)
        try:
            yield page
        finally:
            self.call("Target.disposeBrowserContext", browserContextId=context)
            self.events.clear()


@attrs.define
class Page:
    """A page of a browser."""

    _browser: Browser
    _session: str
    _context: str

    def call(self, method: str, **params: Any) -> Any:
        """Send a command about the page, and return its result."""
        return self._browser.call(method, self._session, **params)

    def emulate(self, media: str = "", **features: str) -> None:
        """Set the medium and its features."""
        named = [{"name": name.replace("_", "-"), "value": is_} for name, is_ in features.items()]
        self.call("Emulation.setEmulatedMedia", media=media, features=named)

    def open(self, path: Path, *, fragment: str = "") -> None:
        """Open a file, and wait until it and what it needs is loaded."""
        self.call("Page.navigate", url=path.absolute().as_uri() + fragment)
        self._browser.wait("Page.loadEventFired", self._session)

    def run(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript, or of its promise."""
        done = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until an expression is true."""
        until = time.monotonic() + SECONDS
        while not self.run(f"Boolean({expression})"):
            assert time.monotonic() < until, f"never true: {expression}"
            time.sleep(0.01)

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            text = {"text": key} if len(key) == 1 else {}
            for kind in ("keyDown", "keyUp"):
                self.call("Input.dispatchKeyEvent", type=kind, key=key, **text)

    def click(self, selector: str) -> None:
        """Click on the middle of an element, once nothing moves any more."""
        place = self.run(f"({STILL})({json.dumps(selector)})")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def downloads_to(self, folder: Path) -> None:
        """Keep what is downloaded in a folder."""
        self._browser.call(
            "Browser.setDownloadBehavior",
            behavior="allow",
            browserContextId=self._context,
            downloadPath=str(folder),
        )

    def screenshot(self, path: Path, *, full: bool = False) -> None:
        """Write a picture of the window, or of the whole page, as PNG."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=full)["data"]
        path.write_bytes(base64.b64decode(data))

    def said(self, *methods: str) -> list[Any]:
        """Return what events of the page have said so far."""
        self.run("0")
        return [
            event["params"]
            for event in self._browser.events
            if event["method"] in methods and event.get("sessionId") == self._session
        ]


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """Run a Chromium; skip the test if the system lacks it."""
    program("chromium")
    browser = Browser(folder)
    try:
        yield browser
    finally:
        browser.close()
