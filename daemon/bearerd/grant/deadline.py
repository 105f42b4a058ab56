"""One deadline for a whole request.

The timeout of a socket starts again at each read, so a server that sends a byte now and then could hold a request for
ever. Instead, an alarm shuts the connection down at the deadline, which wakes the thread that waits for it.
"""

from __future__ import annotations

import heapq
import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf
from typing import Final, cast

from bearerd.grant.addresses import Address, HostPort
from bearerd.grant.heads import Allowance
from bearerd.grant.outcome import Phase
from bearerd.grant.proxy import Proxy
from bearerd.threads import Started, begin

PROMPT: Final = 0.001
"""Seconds. For an answer that comes as soon as this, another thread would not even have begun."""


class Alarm:
    """Ends attempts at their deadlines, from one thread that sleeps while there is none."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, Attempt]] = []
        self._order = itertools.count()
        self._thread: Started | None = None
        self._sleeps_until = inf

    def set(self, attempt: Attempt) -> None:
        """End this attempt at its deadline; raises RuntimeError if its thread cannot be started."""
        with self._changed:
            # It may have ended with an exception, such as a MemoryError, or never have begun.
            if self._thread is None or not self._thread.alive():
                self._sleeps_until = inf
                self._thread = begin("deadlines", self._run)
            self._drop_ended()
            heapq.heappush(self._heap, (attempt.deadline, next(self._order), attempt))
            if attempt.deadline < self._sleeps_until:
                self._sleeps_until = attempt.deadline
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._drop_ended()
                self._sleeps_until = self._heap[0][0] if self._heap else inf
                if not self._heap:
                    self._changed.wait()
                    continue
                left = self._sleeps_until - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
                attempt = self._heap[0][2]
            attempt.expire()
            attempt.alarmed = True  # only now: after an exception another thread does it

    def _drop_ended(self) -> None:
        """Drop attempts that are over before the first one in progress. In a burst they would pile up for a timeout."""
        while self._heap and (self._heap[0][2].ended or self._heap[0][2].alarmed):
            heapq.heappop(self._heap)


ALARM = Alarm()
_now = threading.local()


class Attempt:
    """One request in progress: its deadline, its phase, its bounds and its connections."""

    def __init__(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        self.phase: Phase = "name look-up"
        self.heads = Allowance()
        self.connected: dict[HostPort, Address] = {}
        """The hosts and ports to which it opened a connection, each with the address."""
        self.proxy: Proxy | None = None
        """Through which it connects."""
        self.may_be_stale = False
        """Whether it uses a kept connection that has not answered yet."""
        self.prompt = False
        """Whether the provider's last answer came within `PROMPT`."""
        self.ended = False
        self.expired = False
        self.alarmed = False
        """Whether the alarm has ended it, so that it may forget it."""
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make this the attempt that connections of this thread report to."""
        _now.attempt = self
        try:
            yield
        finally:
            _now.attempt = None

    def left(self) -> float:
        """Seconds until the deadline; raises TimeoutError when there are none."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def watch(self, descriptor: int) -> None:
        """Shut this connection down at the deadline.

        It keeps a duplicate of the descriptor: TLS moves the original into another object, and a response closes it at
        its end while the body is still being read.
        """
        duplicate = socket.socket(fileno=os.dup(descriptor))
        with self._lock:
            self._sockets.append(duplicate)
            expired = self.expired
        if expired:
            self.expire()

    def expire(self) -> None:
        """The deadline is reached: wake the thread that waits for one of the connections."""
        with self._lock:
            if self.ended:
                return
            self.expired = True
            for connection in self._sockets:
                with suppress(OSError):  # no longer connected
                    connection.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """The request is over. The alarm may keep this object until its deadline, but no password."""
        self.proxy = None
        with self._lock:
            self.ended = True
            for connection in self._sockets:
                connection.close()
            self._sockets.clear()


def current_attempt() -> Attempt:
    """The attempt that this thread is making."""
    return cast("Attempt", _now.attempt)
