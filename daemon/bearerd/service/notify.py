"""Notifies systemd by sd_notify(3): ready, reloading, stopping, the status line, and the watchdog.

The protocol is a datagram of `NAME=value` lines. The unit is Type=notify, or notify-reload (systemd 253 and later).
"""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import inf
from typing import Final, Protocol

from bearerd.api.status import Status, summary
from bearerd.errors import unexpected
from bearerd.log import say
from bearerd.reason import reason_of
from bearerd.threads import begin

# Seconds. During the start, systemd gives up this long after the last message, or at TimeoutStartSec if that is later.
_EXTENDED_BY: Final = 30.0
# Seconds between two such messages, so that one may be lost.
_EXTENDED_EVERY: Final = 10.0
# Messages per watchdog interval, so that one may be late or lost.
_BEATS: Final = 3
# Seconds between two status lines: 10,000 tokens take about 50 ms. During the start, READY must not wait that long.
_LOOKS: Final = 2.0
_LOOKS_STARTING: Final = 0.05
# systemd reads at once, except for some seconds during daemon-reload. No message is worth a longer wait.
_SENT_WITHIN: Final = 2.0
# For the last message, also to wait for the one before it: a stop has 5 s, and the turns need most of them.
_STOPPING_WITHIN: Final = 0.2


class Daemon(Protocol):
    """The daemon whose state is reported."""

    def alive(self) -> bool:
        """Whether the schedule runs."""

    def status(self) -> Status:
        """The status of every token."""

    def unsettled(self) -> bool:
        """Whether a required token is still being obtained."""


class SystemdNotifier:
    """Notifies systemd from a separate thread, until `stopping`. Does nothing without $NOTIFY_SOCKET."""

    def __init__(self, daemon: Daemon, environ: Mapping[str, str], now: Callable[[], float], startup: float) -> None:
        self._daemon = daemon
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._now = now
        self._deadline = now() + startup
        self._beat = watchdog(environ, os.getpid()) / _BEATS
        self._woken, self._ended = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._ready = self._reloading = self._failed = False
        self._extended = self._beaten = self._looked = -inf
        self._status = ""
        self._error = ""
        """The last error that was logged."""

    def start(self) -> None:
        """Start the thread."""
        if self._address:
            begin("notify", self._run)

    def wake(self) -> None:
        """Report a change soon."""
        self._woken.set()

    def reloading(self) -> None:
        """Report that a new config is being loaded. Before READY, systemd requests no reload, and needs no message."""
        with self._lock:
            if self._ready:
                # systemd compares this with the time of its signal, by the same clock.
                self._reloading = self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self) -> None:
        """Report that the new config was applied or refused."""
        with self._lock:
            if self._reloading:
                self._reloading = not self._send("READY=1")
        self.wake()

    def stopping(self) -> None:
        """Report that the daemon stops, unless systemd does not read. Nothing is sent after this."""
        self._ended.set()
        self.wake()
        if self._address and self._lock.acquire(timeout=_STOPPING_WITHIN):
            try:
                self._send("STOPPING=1")
            finally:
                self._lock.release()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001 - without this thread, systemd would kill a daemon that works
                with suppress(MemoryError):  # for the line, too
                    if (why := unexpected(error)) != self._error:
                        self._error = why
                        say(logging.ERROR, f"the status for systemd cannot be made: {why}; retrying")
                time.sleep(_LOOKS)

    def _turn(self) -> None:
        with self._lock:
            if not self._ended.is_set():
                self._tell()
        # Collects changes into one message, and limits retries after a failure.
        self._ended.wait(_LOOKS if self._ready or self._failed else _LOOKS_STARTING)
        self._woken.wait(self._pause())
        self._woken.clear()

    def _pause(self) -> float | None:
        """Seconds until a message is due without a wake; None for never."""
        due = self._beaten + self._beat if self._beat else inf
        if not self._ready:
            due = min(due, self._deadline, self._extended + _EXTENDED_EVERY)
        return None if due == inf else max(0.0, due - self._now())

    def _tell(self) -> None:
        now, lines = self._now(), list[str]()
        alive = self._daemon.alive()
        begins = not self._ready and (now >= self._deadline or not self._daemon.unsettled())
        if begins:
            lines.append("READY=1")
        elif not self._ready and alive and now >= self._extended + _EXTENDED_EVERY:
            self._extended = now
            lines.append(f"EXTEND_TIMEOUT_USEC={_EXTENDED_BY * 1_000_000:.0f}")
        # Depends on no file, name server or provider: a restart does not help if one of them hangs.
        if alive and self._beat and now >= self._beaten + self._beat:
            self._beaten = now
            lines.append("WATCHDOG=1")
        status = self._status
        try:
            if self._ready or begins or now >= self._looked + _LOOKS:
                self._looked = now
                status = f"STATUS={summary(self._daemon.status())}"
            if status != self._status:
                lines.append(status)
        finally:  # systemd needs the other lines even if there is no status
            if lines and self._send(*lines):
                self._status = status
                self._ready = self._ready or begins

    def _send(self, *lines: str) -> bool:
        """Send a message. Returns whether that worked; only the first failure is logged."""
        # An abstract socket's name begins with a zero byte, for which systemd writes "@".
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(_STOPPING_WITHIN if self._ended.is_set() else _SENT_WITHIN)
                sender.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            if not self._failed:
                self._failed = True
                say(logging.WARNING, f"systemd cannot be notified: $NOTIFY_SOCKET: {reason_of(error)}")
            return False
        return True


def watchdog(environ: Mapping[str, str], pid: int) -> float:
    """The watchdog interval of this process in seconds; 0 without a watchdog (sd_watchdog(3))."""
    asked = environ.get("WATCHDOG_USEC", "")
    meant = environ.get("WATCHDOG_PID", str(pid)) == str(pid)
    return int(asked) / 1_000_000 if meant and re.fullmatch("[0-9]{1,20}", asked) else 0.0  # systemd's has 64 bits
