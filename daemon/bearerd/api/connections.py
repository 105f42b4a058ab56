"""The connections of one listening socket, from accept to a complete request.

One thread reads all incomplete requests without blocking, and sleeps without a timeout while there are none. Their
number, size and time are bounded. When there are too many, the oldest makes room for a new one once it has had
`_TO_SEND`. So a client that sends its request at once waits only for those before it in the kernel's queue, whatever
other clients do.

Complete requests are answered by cost (`routes`). This thread sends instant replies. Other threads make and send small
and large ones (`replies`), so that slow readers of large replies do not block a probe.
"""

from __future__ import annotations

import errno
import logging
import selectors
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from bearerd.api.daemon import Daemon
from bearerd.api.limits import Limits
from bearerd.api.message import CONTINUE, HEAD_LIMIT, BadRequest, Reply, Request, parse, split
from bearerd.api.replies import Job, Replies, report, send_now
from bearerd.api.routes import Access, Cost, find
from bearerd.log import say

# Seconds from accept to a complete request, or to the end of reading after an error. A request is usually one packet.
_REQUEST_WITHIN: Final = 5.0
# Seconds that each connection has to send its request, even if there are too many, unless descriptors run out. Until
# then new ones wait in the backlog. A client may lose the processor between connecting and sending, for a few ms on a
# busy machine. With more, those who come after a flood would wait longer: 96 connections make room in this time.
_TO_SEND: Final = 0.01
# Seconds without accepting if there is no descriptor left and no connection to drop.
_PAUSE: Final = 1.0
# Connections accepted before those that have sent something are read again.
_BATCH: Final = 32
# Bytes discarded after an error. Closing with unread bytes would reset the connection, and the reply could get lost.
_DISCARD: Final = 256 * 1024
_DISCARD_PART: Final = 64 * 1024
# Errors of accept(2) that concern one client only.
_AGAIN: Final = frozenset({errno.ECONNABORTED, errno.EINTR, errno.EPROTO})
# Errors that dropping a connection fixes. Other errors of accept(2) come from the network, and pass.
_SHORTAGE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@dataclass(slots=True, eq=False)
class _Incomplete:
    """A connection with an incomplete request, or one that is read to its end after an error."""

    socket: socket.socket
    deadline: float
    received: bytearray = field(default_factory=bytearray)
    request: Request | None = None
    """Set when the head is complete and the body is not."""
    answered: bool = False
    """After an error: the rest is discarded."""
    left: int = 0
    """Bytes still to be discarded: those of the body, or after an error at most `_DISCARD`."""


class Connections:
    """Serves a listening socket until `stop`. `run` needs a dedicated thread, which then owns the socket."""

    def __init__(self, listening: socket.socket, daemon: Daemon, access: Access, limits: Limits) -> None:
        listening.setblocking(False)
        self._listening = listening
        self._stopped = False
        self._closed = False
        self._daemon = daemon
        self._access = access
        self._most = limits.incomplete
        self._incomplete: dict[socket.socket, _Incomplete] = {}
        """The oldest first. All have the same time limit, so the oldest is also the first to reach it."""
        self._replies = Replies(daemon, limits)
        self._listens = True
        self._paused_until = 0.0
        """A monotonic time; in the past if there is no pause."""
        self._shortage_reported = False
        # poll(2) needs no additional descriptor, which matters when none is left.
        self._selector = selectors.PollSelector()
        self._selector.register(listening, selectors.EVENT_READ)

    def run(self) -> None:
        """Read and answer requests. Returns after `stop`, when no incomplete request is left."""
        try:
            while not self._closed or self._incomplete:
                for key, _ in self._selector.select(self._timeout()):
                    if key.fileobj is self._listening:
                        self._accept()
                    elif key.fileobj in self._incomplete:  # unless it was dropped meanwhile
                        self._read(key.data)
                self._look_at_the_clock()
        finally:
            self._listening.close()
            for entry in [*self._incomplete.values()]:
                self._drop(entry)

    def stop(self) -> None:
        """Stop accepting. Thread-safe."""
        self._stopped = True
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # the kernel now refuses clients, and `run` wakes

    # -- the selector's thread ---------------------------------------------------------------------------

    def _timeout(self) -> float | None:
        """Seconds until something is due; None to sleep until a client connects."""
        due = [self._oldest().deadline] if self._incomplete else []
        due += [] if self._listens or self._closed else [self._accepts_from()]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        while self._incomplete and self._oldest().deadline <= now:
            self._drop(self._oldest())
        if not self._closed:
            self._listen(self._accepts_from() <= now)

    def _listen(self, listens: bool) -> None:
        if listens and not self._listens:
            self._selector.register(self._listening, selectors.EVENT_READ)
        elif self._listens and not listens:
            self._selector.unregister(self._listening)
        self._listens = listens

    def _accepts_from(self) -> float:
        """The monotonic time from which a connection is accepted."""
        if len(self._incomplete) < self._most:
            return self._paused_until
        return max(self._paused_until, self._oldest().deadline - _REQUEST_WITHIN + _TO_SEND)

    def _accept(self) -> None:
        if self._stopped:
            self._close_listening()
            return
        for _ in range(_BATCH):
            if self._accepts_from() > time.monotonic():
                return
            try:
                connection, _ = self._listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _AGAIN:
                    continue
                shortage = error.errno in _SHORTAGE
                if shortage and not self._shortage_reported:
                    self._shortage_reported = True
                    what = (error.strerror or "no room").lower()
                    say(
                        logging.WARNING,
                        f"local API: clients have to wait: {what}; raise LimitNOFILE; tokens are still refreshed",
                    )
                if not (shortage and self._incomplete):
                    self._paused_until = time.monotonic() + _PAUSE
                    return
                self._drop(self._oldest())
                continue
            if len(self._incomplete) >= self._most:
                self._drop(self._oldest())
            connection.setblocking(False)
            entry = _Incomplete(connection, time.monotonic() + _REQUEST_WITHIN)
            self._incomplete[connection] = entry
            self._selector.register(connection, selectors.EVENT_READ, entry)
            self._read(entry)  # the request has usually arrived, and then a flood cannot displace it

    def _close_listening(self) -> None:
        self._listen(False)
        self._listening.close()
        self._closed = True

    def _read(self, entry: _Incomplete) -> None:
        """Read what has arrived. A bug costs only this connection."""
        try:
            self._take(entry)
        except BlockingIOError:
            return
        except OSError:  # the client is gone
            self._drop(entry)
        except BadRequest as error:
            self._answer_unread(entry, error.reply)
        except Exception as error:  # noqa: BLE001 - see above
            self._drop(entry)
            report(error)

    def _take(self, entry: _Incomplete) -> None:
        """Read from the socket, and answer if the request is complete. Raises OSError, BadRequest."""
        head = entry.request is None and not entry.answered
        data = entry.socket.recv(HEAD_LIMIT + 1 - len(entry.received) if head else min(entry.left, _DISCARD_PART))
        if not data:
            self._drop(entry)
            return
        if head:
            entry.received += data
            self._take_head(entry)
        else:
            entry.left -= len(data)
        if entry.left:
            return
        if entry.answered:
            self._drop(entry)
        elif entry.request is not None:
            self._answer(entry, entry.request)

    def _take_head(self, entry: _Incomplete) -> None:
        parts = split(bytes(entry.received))
        if parts is None:
            return
        head, rest = parts
        entry.request = parse(head)
        entry.left = max(0, entry.request.body - len(rest))
        if entry.left and entry.request.expects_continue:
            entry.socket.send(CONTINUE)

    def _answer(self, entry: _Incomplete, request: Request) -> None:
        route = find(request, self._access)
        if route.cost is Cost.INSTANT:
            send_now(entry.socket, route.make(self._daemon), request)
            self._drop(entry)
        else:
            self._forget(entry)
            self._replies.submit(Job(entry.socket, request, route))

    def _answer_unread(self, entry: _Incomplete, reply: Reply) -> None:
        """Answer a request that was not read to its end, then discard some of the rest."""
        entry.received.clear()
        entry.answered, entry.left = True, _DISCARD
        if send_now(entry.socket, reply, None):
            with suppress(OSError):
                entry.socket.shutdown(socket.SHUT_WR)
        else:
            self._drop(entry)

    def _oldest(self) -> _Incomplete:
        return next(iter(self._incomplete.values()))

    def _drop(self, entry: _Incomplete) -> None:
        self._forget(entry)
        entry.socket.close()

    def _forget(self, entry: _Incomplete) -> None:
        if self._incomplete.pop(entry.socket, None) is not None:
            self._selector.unregister(entry.socket)
