"""What systemd is told, by sd_notify(3): ready, reloading, stopping, how it stands, and that it lives.

All of the protocol is a datagram of `NAME=value` lines; the unit is Type=notify, or notify-reload (253 and later).
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from math import inf
from typing import Final, Protocol

from bearerd.api.status import Status, summary
from bearerd.log import say

# While it starts: systemd gives up this long after it last heard, or at its own TimeoutStartSec if that is later.
_EXTENDED_BY: Final = 30.0
_EXTENDED_EVERY: Final = 10.0
# Of the time that the watchdog gives. A beat may come late, or one be missed, and nothing happens.
_BEATS: Final = 3
# Seconds between two looks at all tokens: ten thousand are looked at in some 50 ms. Who waits for READY waits less.
_LOOKS: Final = 2.0
_LOOKS_STARTING: Final = 0.05
# The manager reads at once, but for the seconds of a daemon-reload; a message is not worth a worker's hanging.
_SENT_WITHIN: Final = 2.0


class House(Protocol):
    """What is told about."""

    def alive(self) -> bool:
        """Whether turns are given."""

    def status(self) -> Status:
        """How everything stands."""

    def unsettled(self) -> bool:
        """Whether a required token is still on its way."""


class Notify:
    """Tells the service manager, from a thread of its own, until `stopping`; where there is none, nothing."""

    def __init__(self, house: House, environ: Mapping[str, str], now: Callable[[], float], startup: float) -> None:
        self._house = house
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._now = now
        self._deadline = now() + startup
        self._beat = watchdog(environ, os.getpid()) / _BEATS
        self._woken, self._ended = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._ready = self._reloading = self._untold = False
        self._extended = self._beaten = self._looked = -inf
        self._status = ""
        self._thread = threading.Thread(target=self._run, name="notify", daemon=True)

    def start(self) -> None:
        """Begin to tell."""
        if self._address:
            self._thread.start()

    def wake(self) -> None:
        """Something is another now."""
        self._woken.set()

    def reloading(self) -> None:
        """A new config is being loaded. Before READY nobody can ask for that, and READY must not come of it."""
        with self._lock:
            if self._ready:
                # systemd compares this with when it sent its signal, by the same clock.
                self._reloading = self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self) -> None:
        """It is followed, or refused."""
        with self._lock:
            if self._reloading:
                self._reloading = not self._send("READY=1")
        self.wake()

    def stopping(self) -> None:
        """The end has begun; nothing is told after this."""
        self._ended.set()
        self.wake()
        if self._address:
            with self._lock:
                self._send("STOPPING=1")

    def _run(self) -> None:
        while not self._ended.is_set():
            with self._lock:
                if not self._ended.is_set():
                    self._tell()
            # What comes meanwhile is told together. And who cannot be told is not tried all the time.
            self._ended.wait(_LOOKS if self._ready or self._untold else _LOOKS_STARTING)
            self._woken.wait(self._pause())
            self._woken.clear()

    def _pause(self) -> float | None:
        """Seconds until there is something to be told without being woken; None for never."""
        due = self._beaten + self._beat if self._beat else inf
        if not self._ready:
            due = min(due, self._deadline, self._extended + _EXTENDED_EVERY)
        return None if due == inf else max(0.0, due - self._now())

    def _tell(self) -> None:
        now, lines = self._now(), list[str]()
        alive = self._house.alive()
        begins = not self._ready and (now >= self._deadline or not self._house.unsettled())
        if begins:
            lines.append("READY=1")
        elif not self._ready and alive and now >= self._extended + _EXTENDED_EVERY:
            self._extended = now
            lines.append(f"EXTEND_TIMEOUT_USEC={_EXTENDED_BY * 1_000_000:.0f}")
        # Nothing here holds on to files, names or providers: a hang of those is no fault that a restart mends.
        if alive and self._beat and now >= self._beaten + self._beat:
            self._beaten = now
            lines.append("WATCHDOG=1")
        status = self._status
        if self._ready or begins or now >= self._looked + _LOOKS:
            self._looked = now
            status = f"STATUS={summary(self._house.status())}"
        if status != self._status:
            lines.append(status)
        if lines and self._send(*lines):
            self._status = status
            self._ready = self._ready or begins

    def _send(self, *lines: str) -> bool:
        """Whether that has been told; only the first that could not be is said."""
        # An abstract socket's name begins with a zero byte, for which systemd writes "@".
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as teller:
                teller.settimeout(_SENT_WITHIN)
                teller.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            if not self._untold:
                self._untold, why = True, error.strerror or type(error).__name__
                say(logging.WARNING, f"systemd cannot be told how things stand: $NOTIFY_SOCKET: {why.lower()}")
            return False
        return True


def watchdog(environ: Mapping[str, str], pid: int) -> float:
    """Seconds within which the service manager wants to hear of this process; 0 where it does not (sd_watchdog(3))."""
    asked = environ.get("WATCHDOG_USEC", "")
    meant = environ.get("WATCHDOG_PID", str(pid)) == str(pid)
    return int(asked) / 1_000_000 if meant and asked.isascii() and asked.isdigit() else 0.0
