"""The local API: HTTP on the control socket, and metrics and probes on `listen`.

Nothing here wakes an idle process: each listener's thread sleeps in accept, each connection has a thread of
its own and ends with its one answer. Who is slow or silent is cut off, sooner where somebody else comes.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import socket
import stat
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from itertools import chain
from math import ceil
from typing import Final, Protocol
from urllib.parse import parse_qs, urlsplit

from bearerd.errors import PublishError
from bearerd.lifecycle.schedule import where
from bearerd.log import say
from bearerd.model import Config, Listen
from bearerd.publish.owners import gid_of
from bearerd.publish.why import why
from bearerd.service import status as statuses
from bearerd.service.engine import Asked
from bearerd.service.status import Status

# More at a time nobody has: a scraper, two probes, a page, a few who ask. Each is a thread of the unit's TasksMax.
# Further ones wait in the kernel, which is no thread.
_MOST_AT_ONCE: Final = 16
_WAITING: Final = 128
# Seconds. A request is a line or two; an answer of 10,000 tokens is read in one.
_SILENT: Final = 5.0
_WHOLE: Final = 10.0
# Seconds after which one makes room for another: to say what is wanted, and to take the next part of the answer.
# A probe gives up after one second.
_SAYS: Final = 0.25
_TAKES: Final = 2.0
# Seconds until accepting is tried again where no descriptor is left.
_ACCEPT_AGAIN: Final = 1.0
_PART: Final = 64 * 1024
# Bytes, as Content-Length names them.
_SOME_BODY: Final = re.compile(r"[0-9]{1,4}")
# Of 10,000 tokens that are not ready the first few say enough.
_MOST_REASONS: Final = 20
# Characters: a path of 255, a place, and what kind of error it is.
_LONGEST_ERROR: Final = 400
_JSON: Final = "application/json"


class House(Protocol):
    """Who is asked."""

    def alive(self) -> bool:
        """Whether the schedule's heart beats; answers at once, whatever hangs."""
        ...

    def config_error(self) -> str | None:
        """Why a newer config is not followed; answers at once."""
        ...

    def status(self) -> Status:
        """How everything stands."""
        ...

    def refresh(self, name: str, instead_of: str | None) -> Asked:
        """Somebody wants a new token."""
        ...


@dataclass(frozen=True, slots=True)
class _Reply:
    """What is answered."""

    status: int
    body: Iterable[bytes] = ()
    kind: str = _JSON
    headers: tuple[tuple[str, str], ...] = ()


def _said(status: int, document: object, *headers: tuple[str, str]) -> _Reply:
    return _Reply(status, [json.dumps(document).encode() + b"\n"], headers=headers)


_Route = Callable[[House], _Reply]


def _livez(house: House) -> _Reply:
    alive = house.alive()
    reasons = [] if alive else ["the schedule's heartbeat is stale: no turns are given"]
    return _said(200 if alive else 503, {"ok": alive, "reasons": reasons, "config_error": _config_error(house)})


def _readyz(house: House) -> _Reply:
    found = statuses.unready(house.status())
    reasons = [f"{name}: {why}" for name, why in found]
    document = {"ok": not reasons, "reasons": _some(reasons), "config_error": _config_error(house)}
    return _said(503 if reasons else 200, document)


def _config_error(house: House) -> str | None:
    """The first line: a probe is no place for all errors of a config, nor for what stands in it."""
    error = house.config_error()
    return error.partition("\n")[0][:_LONGEST_ERROR] if error else None


def _some(reasons: list[str]) -> list[str]:
    rest = len(reasons) - _MOST_REASONS
    return reasons if rest <= 0 else [*reasons[:_MOST_REASONS], f"and {rest} more"]


def _metrics(house: House) -> _Reply:
    from bearerd.service import metrics  # noqa: PLC0415 - its library is worth its memory only where it is asked for

    return _Reply(200, metrics.expose(house.status()), metrics.CONTENT_TYPE)


def _page(house: House) -> _Reply:
    from bearerd.service import page  # noqa: PLC0415 - likewise

    return _Reply(200, page.render(house.status()), "text/html; charset=utf-8", page.HEADERS)


_PROBES: Final[Mapping[str, _Route]] = {"/livez": _livez, "/readyz": _readyz, "/metrics": _metrics}
_REFRESH: Final = re.compile(r"/refresh/([^/]+/[^/]+)")
_DIGEST: Final = re.compile(r"[0-9A-Fa-f]{16}")


def _answer(house: House, target: str, method: str, *, everything: bool, page: bool) -> _Reply:
    """What a request is answered; `everything` is for who came by the control socket."""
    try:
        url = urlsplit(target)
    except ValueError:
        return _said(400, {"error": "expected a path"})
    asked = _REFRESH.fullmatch(url.path) if everything else None
    routes = dict(_PROBES)
    if everything or page:
        routes["/"] = _page
    if everything:
        routes["/status"] = lambda house: _status(house, url.query)
    if asked is None and url.path not in routes:
        there = [*sorted(routes), *(["POST /refresh/<client>/<token>"] if everything else [])]
        return _said(404, {"error": f"there is only {', '.join(there)} here"})
    allowed = ("POST",) if asked else ("GET", "HEAD")
    if method not in allowed:
        return _said(405, {"error": f"expected {' or '.join(allowed)}"}, ("Allow", ", ".join(allowed)))
    return _refresh(house, asked[1], url.query) if asked else routes[url.path](house)


def _status(house: House, query: str) -> _Reply:
    only = parse_qs(query).get("name", [None])[0]
    return _Reply(200, (part.encode() for part in statuses.text(house.status(), only)))


def _refresh(house: House, name: str, query: str) -> _Reply:
    given = parse_qs(query, keep_blank_values=True).get("not", [None])[0]
    if given is not None and _DIGEST.fullmatch(given) is None:
        return _said(400, {"error": "expected not=<the first 16 hex digits of the failed token's SHA-256>"})
    asked = house.refresh(name, given)
    if asked.answer == "unknown":
        return _said(404, {"error": f"there is no token '{name}'"})
    if asked.answer == "newer":
        return _said(200, {"name": name, "answer": "there is a newer token in its files already"})
    if asked.answer == "later":
        seconds = ceil(round(asked.after, 3))  # what two readings of a clock differ by is no second
        said = {"name": name, "error": f"asked for too often: again in {seconds} s", "retry_after": seconds}
        return _said(429, said, ("Retry-After", str(seconds)))
    return _said(202, {"name": name, "answer": "asked for", "grants": asked.grants})


# -- HTTP --------------------------------------------------------------------------------------------


class _Handler(BaseHTTPRequestHandler):
    """One request, one answer, and the end."""

    protocol_version = "HTTP/1.1"
    # Of a request line that is none; the library's 0.9 would have an answer without a status.
    default_request_version = "HTTP/1.0"
    timeout = _SILENT

    def __init__(self, connection: socket.socket, door: _Door) -> None:
        self._door = door
        super().__init__(connection, "", None)  # type: ignore[arg-type]  # it only hands them on

    def handle(self) -> None:
        self.close_connection = True
        self.raw_requestline = self.rfile.readline(_PART + 1)
        if len(self.raw_requestline) > _PART:
            self.requestline, self.request_version, self.command = "", "", ""
            self.send_error(HTTPStatus.REQUEST_URI_TOO_LONG)
        elif self.raw_requestline and self.parse_request():
            self._send(self._reply())

    def _reply(self) -> _Reply:
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or _SOME_BODY.fullmatch(length) is None:
            return _said(413, {"error": "a request has no body here"})
        self.rfile.read(int(length))  # what is left unread would make the close a reset
        door = self._door
        door.goes_on(self.connection)
        return _answer(door.house, self.path, self.command, everything=door.everything, page=door.page)

    def _send(self, reply: _Reply) -> None:
        parts = _parts(reply.body)
        first, second = next(parts, b""), next(parts, None)
        whole = second is None
        chunked = not whole and self.request_version == "HTTP/1.1"
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.kind)
        self.send_header("Cache-Control", "no-store")
        for name, value in reply.headers:
            self.send_header(name, value)
        if whole:
            self.send_header("Content-Length", str(len(first)))
        elif chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            return
        for part in chain([first] if second is None else [first, second], parts):
            # Whoever is cut off in the middle must be able to tell.
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
            self._door.goes_on(self.connection)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """The library's complaints, without what they quote."""
        self._send(_said(code, {"error": HTTPStatus(code).phrase}))

    def version_string(self) -> str:
        """What the Server header says."""
        return "bearerd"

    def log_message(self, *_: object) -> None:
        """Who asked is nobody's business."""


def _parts(body: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of a size that is worth a write."""
    part = bytearray()
    for piece in body:
        part += piece
        if len(part) >= _PART:
            yield bytes(part)
            part.clear()
    if part:
        yield bytes(part)


# -- sockets -----------------------------------------------------------------------------------------


class Control:
    """The control socket and `listen`, while the daemon runs."""

    def __init__(self, house: House, config: Config, now: Callable[[], float]) -> None:
        self._doors: list[_Door] = []
        if config.control is not None:
            self._doors.append(_Unix(house, now, config.control.socket, config.control.mode, config.group))
        if config.listen is not None:
            self._doors.append(_Tcp(house, now, config.listen))

    def tick(self) -> None:
        """Open what is not open, again where somebody took the socket's file away; cut off who takes too long."""
        for door in self._doors:
            door.tick()

    def stop(self) -> None:
        """Close all of it; answers that are under way go on for as long as the process does."""
        for door in self._doors:
            door.stop()


@dataclass(frozen=True, slots=True)
class _Stay:
    """One connection's time."""

    came: float
    until: float
    """From then on it makes room for another."""


class _Door(ABC):
    """One socket that is listened at."""

    everything = False
    page = False

    def __init__(self, house: House, now: Callable[[], float], name: str) -> None:
        self.house = house
        self.name = name
        self._now = now
        self._listener: socket.socket | None = None
        self._room = threading.Condition()
        self._open: dict[socket.socket, _Stay] = {}
        self._stopped = threading.Event()
        self._said = ""

    @abstractmethod
    def _bind(self) -> socket.socket:
        """The socket, listening; raises OSError or PublishError."""

    @abstractmethod
    def _stands(self) -> bool:
        """Whether it still is where others look for it."""

    def tick(self) -> None:
        if self._listener is not None and not self._stands():
            self._shut()
        if self._listener is None:
            self._begin()
        now = self._now()
        with self._room:
            late = [connection for connection, stay in self._open.items() if now - stay.came > _WHOLE]
        for connection in late:
            _cut(connection)

    def stop(self) -> None:
        self._stopped.set()
        self._shut()

    def goes_on(self, connection: socket.socket) -> None:
        """Its other end is not slow: it said what it wants, or took a part of the answer."""
        with self._room:
            if connection in self._open:
                self._open[connection] = replace(self._open[connection], until=self._now() + _TAKES)

    def _begin(self) -> None:
        try:
            listener = self._bind()
            try:
                threading.Thread(target=self._accept, args=(listener,), name="control", daemon=True).start()
            except RuntimeError:
                listener.close()
                raise PublishError("no thread can be started; raise TasksMax") from None
        except (OSError, PublishError) as error:
            fault = why(error) if isinstance(error, OSError) else str(error)
            if fault != self._said:
                self._said = fault
                say(
                    logging.ERROR,
                    f"{self.name} cannot be listened at: {fault}; trying again, tokens are kept meanwhile",
                )
            return
        self._listener = listener
        say(logging.INFO if self._said else logging.DEBUG, f"listening at {self.name}")
        self._said = ""

    def _shut(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            _cut(listener)  # who sleeps in accept wakes from this, not from a close
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError as error:
                if error.errno in {errno.EINVAL, errno.EBADF}:  # shut
                    return
                with self._room:
                    self._cut_slowest()  # no descriptors are left
                self._stopped.wait(_ACCEPT_AGAIN)
                continue
            self._take_in(connection)
            try:
                threading.Thread(target=self._serve, args=(connection,), name="control", daemon=True).start()
            except RuntimeError:  # no more threads may be started (TasksMax): then one after the other
                self._serve(connection)

    def _take_in(self, connection: socket.socket) -> None:
        """Wait until there is room: until somebody has the answer, or was slow for long enough."""
        with self._room:
            while len(self._open) >= _MOST_AT_ONCE:
                left = self._cut_slowest()
                if left > 0:
                    self._room.wait(left)
            now = self._now()
            self._open[connection] = _Stay(now, now + _SAYS)

    def _cut_slowest(self) -> float:
        """Cut off who had the time for it, if there is one; seconds until there will be. With the lock held."""
        slowest = min(self._open, key=lambda connection: self._open[connection].until, default=None)
        if slowest is None:
            return 0.0
        left = self._open[slowest].until - self._now()
        if left <= 0:
            del self._open[slowest]
            _cut(slowest)
        return left

    def _serve(self, connection: socket.socket) -> None:
        try:
            with suppress(OSError):  # the other end has gone, or was cut off
                _Handler(connection, self)
        except Exception as error:  # noqa: BLE001 - a fault of ours may cost an answer, nothing else
            say(
                logging.ERROR, f"a request was not answered: {where(error)}; this is a bug of bearerd, please report it"
            )
        finally:
            self._end(connection)

    def _end(self, connection: socket.socket) -> None:
        with self._room:
            self._open.pop(connection, None)
            self._room.notify_all()
        with suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        connection.close()


class _Unix(_Door):
    """The control socket."""

    everything = True
    page = True

    def __init__(self, house: House, now: Callable[[], float], path: str, mode: int, group: str | None) -> None:
        super().__init__(house, now, path)
        self._mode = mode
        self._group = group
        self._made: object = None

    def _bind(self) -> socket.socket:
        gid = gid_of(self._group)
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.lstat(self.name).st_mode):
                raise PublishError("something else than a socket stands there")
            if _answers(self.name):
                raise PublishError("another process listens there; give one of them another control.socket")
            os.unlink(self.name)  # of a daemon that was killed
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Before the bind: the file then has this mode from its first instant.
            os.fchmod(listener.fileno(), self._mode)
            listener.bind(self.name)
            try:
                if gid != -1:
                    os.chown(self.name, -1, gid, follow_symlinks=False)
                listener.listen(_WAITING)
                self._made = _look(self.name)
            except BaseException:
                os.unlink(self.name)
                raise
        except BaseException:
            listener.close()
            raise
        return listener

    def _stands(self) -> bool:
        try:
            return _look(self.name) == self._made
        except OSError:
            return False

    def stop(self) -> None:
        stands = self._listener is not None and self._stands()
        super().stop()
        if stands:
            with suppress(OSError):
                os.unlink(self.name)


class _Tcp(_Door):
    """`listen`."""

    def __init__(self, house: House, now: Callable[[], float], listen: Listen) -> None:
        shown = f"[{listen.host}]" if ":" in listen.host else listen.host
        super().__init__(house, now, f"{shown}:{listen.port}")
        self._listen = listen
        self.page = listen.page

    def _bind(self) -> socket.socket:
        address, family = (self._listen.host, self._listen.port), _family(self._listen.host)
        try:
            listener = socket.create_server(address, family=family, backlog=_WAITING)
        except OSError as error:  # whose text names the address again
            raise OSError(error.errno, os.strerror(error.errno or 0)) from None
        if not self._listen.port:
            say(logging.INFO, f"listening at port {listener.getsockname()[1]}")
        return listener

    def _stands(self) -> bool:
        return True  # a port that is bound nobody takes away


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _look(path: str) -> object:
    """Which file that is, and who may use it; raises OSError."""
    found = os.lstat(path)
    return found.st_dev, found.st_ino, found.st_mode, found.st_uid, found.st_gid


def _answers(path: str) -> bool:
    """Whether somebody listens at a socket's file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.setblocking(False)
        try:
            other.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # too many wait there, or they speak another way
            return True
    return True


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
