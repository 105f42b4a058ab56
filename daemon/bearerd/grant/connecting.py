"""Connects to a host by name within an attempt's deadline.

A name look-up cannot be interrupted, so it runs in a separate thread, which is abandoned at the deadline.
Connections are opened without blocking in the caller's thread, so a dead address costs 250 ms.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, cast

from bearerd.grant.addresses import Address, HostPort, Winners, in_order
from bearerd.grant.deadline import Attempt, current_attempt
from bearerd.threads import Started, begin

# Seconds. RFC 8305 section 5 recommends this: it is well above the round trip to most hosts.
_HEAD_START: Final = 0.25


class _Lookups:
    """Name look-ups, one at a time for each name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[HostPort, _Lookup] = {}

    def addresses(self, host: HostPort, within: float) -> list[Address]:
        """The answer of getaddrinfo; raises TimeoutError, OSError without a thread, or what getaddrinfo raised."""
        with self._lock:
            lookup = self._running.get(host)
            if lookup is None or lookup.thread.lost():
                try:
                    lookup = _Lookup(self._run, host)
                except RuntimeError as error:
                    raise OSError(errno.EAGAIN, str(error).partition(";")[0]) from None
                self._running[host] = lookup
        if not lookup.done.wait(within):
            raise TimeoutError
        if lookup.error is not None:
            raise lookup.error
        return lookup.found

    def _run(self, host: HostPort, lookup: _Lookup) -> None:
        try:
            # As bytes: for a text Python loads its tables for international names, which are half a megabyte.
            name, port = host
            lookup.found = list(socket.getaddrinfo(name.encode("ascii"), port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            lookup.error = error
        finally:
            with self._lock:
                del self._running[host]
            lookup.done.set()


class _Lookup:
    def __init__(self, run: Callable[[HostPort, _Lookup], None], host: HostPort) -> None:
        self.done = threading.Event()
        self.found: list[Address] = []
        self.error: Exception | None = None
        self.thread: Started = begin("look-up", run, host, self)


_lookups = _Lookups()
_winners = Winners()
_winners_lock = threading.Lock()


def connect(host: HostPort, options: Sequence[tuple[Any, ...]]) -> socket.socket:
    """A connection to the host, which the alarm ends at the deadline of this thread's attempt; raises OSError."""
    attempt = current_attempt()
    found = addresses_of(host, attempt)
    with _winners_lock:
        now = time.monotonic()
        addresses = in_order(found, _winners.preferred(host, now), _winners.failed(host, now))
    try:
        connection, address = _race(addresses, options, attempt)
    except OSError:
        with _winners_lock:
            _winners.forget(host)
        raise
    attempt.watch(connection.fileno())
    attempt.connected[host] = address
    with _winners_lock:
        _winners.won(host, address, time.monotonic())
    return connection


def addresses_of(host: HostPort, attempt: Attempt) -> list[Address]:
    """The addresses of a host; raises OSError."""
    attempt.phase = "name look-up"
    found = _lookups.addresses(host, attempt.left())
    attempt.phase = "connect"
    return found


def address_failed(host: HostPort, address: Address) -> None:
    """The address connected and then failed: the next connection to this host is tried with another one first."""
    with _winners_lock:
        _winners.lost(host, address, time.monotonic())


def _race(
    addresses: Sequence[Address], options: Sequence[tuple[Any, ...]], attempt: Attempt
) -> tuple[socket.socket, Address]:
    """The first connection that is made, and its address. All others are closed, at the deadline at the latest."""
    waiting = deque(addresses)
    failure = OSError(errno.EADDRNOTAVAIL, "the name has no address")
    start_next = 0.0
    opening: dict[socket.socket, Address] = {}
    with selectors.PollSelector() as selector:
        try:
            while waiting or opening:
                left, now = attempt.left(), time.monotonic()
                if waiting and (now >= start_next or not opening):
                    address = waiting.popleft()
                    try:
                        connection = _start(address, options)
                    except OSError as error:
                        # Its traceback would hold this frame and its callers, and keep the pool from being closed.
                        failure = error.with_traceback(None)
                        continue
                    opening[connection] = address
                    selector.register(connection, selectors.EVENT_WRITE)
                    start_next = now + _HEAD_START
                for key, _ in selector.select(min(left, max(0.0, start_next - now)) if waiting else left):
                    connection = cast("socket.socket", key.fileobj)
                    selector.unregister(connection)
                    code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if code == 0:
                        connection.settimeout(attempt.left())
                        return connection, opening.pop(connection)
                    failure = OSError(code, os.strerror(code))
                    connection.close()
                    del opening[connection]
            raise failure
        finally:
            for connection in opening:
                connection.close()


def _start(address: Address, options: Sequence[tuple[Any, ...]]) -> socket.socket:
    """Start to open a connection; raises OSError, for example if this machine lacks the address family."""
    family, kind, protocol, _, there = address
    connection = socket.socket(family, kind, protocol)
    try:
        for option in options:
            connection.setsockopt(*option)
        connection.setblocking(False)
        # The caller waits for the connection.
        with suppress(BlockingIOError):
            connection.connect(there)
    except OSError:
        connection.close()
        raise
    return connection
