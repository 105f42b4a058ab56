"""Makes and sends replies that may take time. Small and large ones have separate workers and queues."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from email.utils import formatdate
from typing import Final, NamedTuple

from bearerd.api.daemon import Daemon
from bearerd.api.limits import Limits
from bearerd.api.message import Reply, Request, document, serialise
from bearerd.api.routes import Cost, Route
from bearerd.api.workers import Workers
from bearerd.errors import unexpected
from bearerd.log import say

# Seconds for a large reply and for each 64 KiB of it. A healthy reader takes 10,000 tokens (7 MB) in one.
_REPLY_WITHIN: Final = 10.0
_PART_WITHIN: Final = 2.0
# Seconds for a small reply. It fits into the socket's buffer, unless the reader made that tiny.
_SMALL_WITHIN: Final = 0.25


class Job(NamedTuple):
    """A complete request. The owner of the job closes its socket."""

    socket: socket.socket
    request: Request
    route: Route


class Replies:
    """Replies to the requests of one listener."""

    def __init__(self, daemon: Daemon, limits: Limits) -> None:
        self._daemon = daemon
        self._small: Workers[Job] = Workers(limits.small, limits.small_waiting, self._serve_small, _alike)
        self._large: Workers[Job] = Workers(limits.large, limits.large_waiting, self._serve_large)
        # Only one large reply at a time makes its next part: each computing thread delays the reading thread
        # by up to 5 ms (the interpreter's switch interval) per call.
        self._making = threading.Lock()

    def submit(self, job: Job) -> None:
        """Reply from a worker. Without a thread, small replies are sent directly, and large ones are refused."""
        small = job.route.cost is Cost.SMALL
        try:
            refused = (self._small if small else self._large).submit(job)
        except RuntimeError as error:  # no thread can be started
            if small:
                self._serve_small([job])
            else:
                _refuse(job, str(error))
        else:
            if refused is not None:
                _refuse(refused, "too many requests at once")

    def _serve_small(self, jobs: Sequence[Job]) -> None:
        """Answer requests of one route with one reply."""
        try:
            reply = jobs[0].route.make(self._daemon)
            for job in jobs:
                _send(job.socket, b"".join(serialise(reply, date(), job.request)), _SMALL_WITHIN)
        except Exception as error:  # noqa: BLE001 - a bug costs only these replies
            report(error)
        finally:
            for job in jobs:
                _close(job.socket)

    def _serve_large(self, jobs: Sequence[Job]) -> None:
        """Answer one request, whose reply is made while it is being sent."""
        (job,) = jobs
        end = time.monotonic() + _REPLY_WITHIN
        try:
            parts = self._parts(job)
            while (left := end - time.monotonic()) > 0 and (part := next(parts, None)) is not None:
                if not _send(job.socket, part, min(left, _PART_WITHIN)):
                    return
        except Exception as error:  # noqa: BLE001 - as above
            report(error)
        finally:
            _close(job.socket)

    def _parts(self, job: Job) -> Iterator[bytes]:
        with self._making:
            parts = serialise(job.route.make(self._daemon), date(), job.request)
        while True:
            with self._making:
                part = next(parts, None)
            if part is None:
                return
            yield part


def send_now(connection: socket.socket, reply: Reply, request: Request | None) -> bool:
    """Send a reply that fits into the socket's buffer, without waiting. Returns whether that worked."""
    data = b"".join(serialise(reply, date(), request))
    try:
        return connection.send(data) == len(data)
    except OSError:  # the client is gone
        return False


def date() -> str:
    """The current time in the format of the Date header."""
    return formatdate(usegmt=True)


def report(error: Exception) -> None:
    """Log an exception that nothing expects, without its text."""
    say(logging.ERROR, f"a request was not answered: {unexpected(error)}")


def _alike(one: Job, other: Job) -> bool:
    """Whether one reply answers both, as for probes. Each refresh request has a different route."""
    return one.route is other.route


def _send(connection: socket.socket, data: bytes, within: float) -> bool:
    """Send everything. Returns whether the client took it in time."""
    try:
        connection.settimeout(within)
        connection.sendall(data)
    except OSError:  # the client is too slow or gone
        return False
    return True


def _refuse(job: Job, error: str) -> None:
    """Refuse a request because there is no capacity."""
    send_now(job.socket, document(503, {"error": error}, ("Retry-After", "1")), job.request)
    _close(job.socket)


def _close(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
    connection.close()
