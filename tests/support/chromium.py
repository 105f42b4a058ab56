"""A real browser: Debian's Chromium in headless mode, driven over a pipe with the DevTools protocol. Loopback only."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.process import WITHIN, eventually

PROGRAM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed (apt-get install chromium)")

_FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--no-sandbox",  # it has none as root or without user namespaces; it opens only our own page
    "--disable-gpu",
    "--disable-dev-shm-usage",  # /dev/shm of a container is small
    "--disable-background-networking",
    "--disable-component-update",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


class Browser:
    """A running browser."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._line.settimeout(WITHIN)
        self._rest = b""
        self._ids = itertools.count(1)
        self._pages: dict[str, Page] = {}

    @contextmanager
    def page(self) -> Iterator[Page]:
        """A new tab during the block."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Audits"):
            page.send(f"{domain}.enable")
        try:
            yield page
        finally:
            self.send("Target.closeTarget", targetId=target)

    def send(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer. Events that arrive meanwhile go to their page."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        self._line.sendall(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if "method" in answer and (page := self._pages.get(answer.get("sessionId", ""))):
                page.receive(answer["method"], answer["params"])
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = self._line.recv(1 << 20)
            assert part, "the browser has ended"
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message


class Page:
    """A tab, and the errors of its console."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.complaints: list[str] = []
        self.time_is_over = False

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the protocol."""
        return self._browser.send(method, self._session, **parameters)

    def receive(self, event: str, about: dict[str, Any]) -> None:
        """Handle an event."""
        if event == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(about["exceptionDetails"].get("exception", about)))
        elif event == "Runtime.consoleAPICalled":
            self.complaints.append(json.dumps(about["args"]))
        elif event == "Log.entryAdded":
            self.complaints.append(about["entry"]["text"])
        elif event == "Audits.issueAdded":
            self.complaints.append(json.dumps(about["issue"]))
        elif event == "Emulation.virtualTimeBudgetExpired":
            self.time_is_over = True

    def go(self, url: str) -> None:
        """Load a page completely."""
        assert "errorText" not in self.send("Page.navigate", url=url)
        self.evaluate("new Promise(on => document.readyState === 'complete' ? on() : addEventListener('load', on))")

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def stand_still(self) -> None:
        """Stop its clocks and timers until `pass_time`: a busy machine takes long for a test."""
        self.send("Emulation.setVirtualTimePolicy", policy="pause")

    def pass_time(self, seconds: float, *, whatever_the_network_does: bool = False) -> None:
        """Advance its clocks and timers, at once. Otherwise they stand still, except for network replies."""
        policy = "advance" if whatever_the_network_does else "pauseIfNetworkFetchesPending"
        self.time_is_over = False
        self.send("Emulation.setVirtualTimePolicy", policy=policy, budget=1000 * seconds)
        eventually(lambda: self.evaluate("0") == 0 and self.time_is_over)

    def look(self, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Set the size and colour scheme of the screen."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def spoken(self) -> list[tuple[str, str]]:
        """The accessibility tree: role and name of each node that is not ignored."""
        nodes = self.send("Accessibility.getFullAXTree")["nodes"]
        return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]


@contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    """Run a browser during the block, with its data below `profile`."""
    assert PROGRAM is not None
    ours, theirs = socket.socketpair()
    flags = (*_FLAGS, f"--user-data-dir={profile}")
    process = subprocess.Popen(
        # The browser reads from descriptor 3 and writes to 4, and ends when they close.
        ["/bin/sh", "-c", 'exec "$@" 3<&0 4>&0 </dev/null', "sh", PROGRAM, *flags],
        stdin=theirs.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(profile), "TZ": "UTC"},
        start_new_session=True,
    )
    theirs.close()
    try:
        yield Browser(ours)
    finally:
        ours.close()
        try:
            process.wait(WITHIN)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
