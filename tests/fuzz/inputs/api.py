"""What clients send to the local API."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
from functools import cache
from unittest import mock

from bearerd.api import connections, message
from bearerd.api.connections import Connections
from bearerd.api.daemon import Requested
from bearerd.api.limits import Limits
from bearerd.api.message import HEAD_LIMIT, BadRequest, parse, serialise, split
from bearerd.api.routes import Access, find
from bearerd.api.status import Status
from fuzz.draw import Draw
from fuzz.target import Target, scratch
from support.prometheus import status, target_status

_STATUSES = frozenset({200, 202, 400, 404, 405, 413, 414, 421, 429, 431, 503, 505})
_DATE = "Fri, 15 Jan 2027 08:00:00 GMT"


class _Daemon:
    """Knows one token, and answers refresh requests in turn."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []

    def alive(self) -> bool:
        return True

    def config_error(self) -> str | None:
        return None

    def status(self) -> Status:
        return _status()

    def refresh(self, name: str, instead_of: str | None) -> Requested:
        self.asked.append((name, instead_of))
        if name != "dnb/bci":
            return Requested("unknown")
        return (Requested("accepted", grants=3), Requested("later", 59.2), Requested("newer"))[len(self.asked) % 3]


@cache
def _status() -> Status:
    return status(target_status(), target_status("risk"))


_ACCESSES = (
    Access(everything=True),
    Access(page=True, hosts=frozenset({"web1.example.com"})),
    Access(hosts=frozenset()),
)


def check_request(data: bytes) -> None:
    """The head of a request, as one piece or in several: it is incomplete, an error, or a reply with a known status."""
    try:
        parts = split(data)
        assert parts == _in_pieces(data), "a head is read differently in pieces"
        if parts is None:
            assert len(data) <= HEAD_LIMIT
            return
        head, rest = parts
        assert len(head) + len(rest) <= len(data)
        request = parse(head)
    except BadRequest as error:
        _check_reply(b"".join(serialise(error.reply, _DATE)), error.reply.status, data)
        return
    assert 0 <= request.body <= 9999
    for access in _ACCESSES:
        daemon = _Daemon()
        route = find(request, access)
        reply = route.make(daemon)
        _check_reply(b"".join(serialise(reply, _DATE, request)), reply.status, data)
        assert not daemon.asked or (access.everything and request.method == "POST"), "a refresh by another way"
        if access.hosts is not None and reply.status not in {400, 421} and (request.authority or request.hosts):
            _check_host(request.authority if request.authority is not None else request.hosts[0], access.hosts)


def _in_pieces(data: bytes) -> tuple[bytes, bytes] | None:
    """What a reader finds that splits after each line."""
    end = 0
    for line in data.splitlines(keepends=True):
        end += len(line)
        if (found := split(data[:end])) is not None:
            return found[0], data[len(data[:end]) - len(found[1]) :]
    return split(data)


def _check_host(value: str, names: frozenset[str]) -> None:
    """DNS rebinding: no other name is answered."""
    host = re.sub(r":[0-9]*$", "", value).lower().removesuffix(".")
    # The zone of an IPv6 address names an interface of the sender, in any characters.
    assert host in names or host == "localhost" or re.fullmatch(r"[0-9.]+|\[[0-9a-f:.]+(%.+)?\]", host), value


def _check_reply(reply: bytes, number: int, request: bytes) -> None:
    assert number in _STATUSES, f"status {number}"
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % number)
    lines = head.split(b"\r\n")
    assert all(re.fullmatch(rb"[A-Za-z-]+: [\x20-\x7e]+", line) for line in lines[1:]), (
        "a header of the request's making"
    )
    if b"@@canary@@" in request:  # longer than a name of a token, and no digest
        assert b"@@canary@@" not in body.replace(b"there is no token '", b"") or b"/refresh/" in request
    if b"application/json" in head and body and b"chunked" not in head:
        json.loads(body)


_REQUESTS = (
    b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /readyz HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: web1.example.com:9810\r\n\r\n",
    b"HEAD /metrics HTTP/1.1\r\nHost: [::1]:9810\r\n\r\n",
    b"GET http://127.0.0.1/status?name=dnb%2Fbci HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    (
        b"POST /refresh/dnb/bci?not=0123456789abcdef HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
        b"Expect: 100-continue\r\n\r\nabc"
    ),
    b"POST /refresh/@@canary@@/x HTTP/1.0\n\n",
    b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET //livez#x HTTP/2.0\r\nHost: a\r\nHost: b\r\n\r\n",
)
_REQUEST_WORDS = (
    *(
        b"GET ",
        b"HEAD ",
        b"POST ",
        b" HTTP/1.1\r\n",
        b" HTTP/1.0\r\n",
        b"\r\n\r\n",
        b"\n\n",
        b"Host: ",
        b"Host: localhost\r\n",
    ),
    *(
        b"/livez",
        b"/readyz",
        b"/metrics",
        b"/status",
        b"/refresh/dnb/bci",
        b"?not=",
        b"?name=",
        b"%2F",
        b"%00",
        b"@@canary@@",
    ),
    *(
        b"Content-Length: ",
        b"Transfer-Encoding: ",
        b"Expect: 100-continue\r\n",
        b"http://",
        b"web1.example.com",
        b"127.0.0.1",
    ),
    *(b"[::1]", b"[::1%25eth0]", b"localhost.", b"\t", b"\x0b", b"\x85", b"\xa0", b"#", b"*"),
)


# -- connections ---------------------------------------------------------------------------------------

_LIMITS = Limits(incomplete=4, small=1, small_waiting=2, large=1, large_waiting=2)
_MOST_CLIENTS = 12
# Seconds of the clock for each round: a connection that has not sent its request makes room after a few of them.
_ROUND = 0.02
# Rounds until all clients are read to their end: a pause of `_TO_SEND`, and one round each to accept and to read.
_ROUNDS_TO_END = 8
_PIECES = (
    b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /", b"livez HTTP/1.0\r\n", b"\r\n", b"Host: x\r\n",
    b"GET /nothing HTTP/1.0\n\n",
    b"Content-Length: 9\r\n\r\n", b"X" * 3000, b"\0", b"POST /livez HTTP/1.1\r\n\r\n", b"Expect: 100-continue\r\n",
    b"HTTP/1.1",
)  # fmt: skip


class _Clock:
    """The clock of `connections`, so that no input waits for it."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def check_connections(data: bytes) -> None:
    """Clients that connect, send parts and leave in any order: the bound is kept, and each reply is a whole one."""
    draw, path = Draw(data), str(scratch() / "api.sock")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    clients: list[socket.socket] = []
    clock = _Clock()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(path)
        listening.listen(_MOST_CLIENTS)
        served = Connections(listening, _Daemon(), Access(), _LIMITS)
        bugs: list[str] = []
        with (
            mock.patch.object(connections, "report", lambda error: bugs.append(type(error).__name__)),
            mock.patch.object(connections, "time", clock),
        ):
            while draw:
                _act(draw, path, clients)
                _step(served, clock)
                assert len(served._incomplete) <= _LIMITS.incomplete, "more connections than the bound"
                assert all(len(each.received) <= HEAD_LIMIT + 1 for each in served._incomplete.values())
            for client in clients:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_WR)
            for _ in range(_ROUNDS_TO_END):
                _step(served, clock)
        for client in clients:
            with client, contextlib.suppress(ConnectionError):
                client.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    _check_sent(client.recv(1 << 16))
        assert not served._incomplete, "a client that left is kept"
        assert not bugs, f"a bug: {bugs}"


def _act(draw: Draw, path: str, clients: list[socket.socket]) -> None:
    what = draw.number(7)
    if what == 0 and len(clients) < _MOST_CLIENTS:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.connect(path)
        clients.append(client)
    elif clients:
        client = clients[draw.number(len(clients) - 1)]
        with contextlib.suppress(OSError):
            if what == 1:
                client.close()
                clients.remove(client)
            elif what == 2:
                client.shutdown(socket.SHUT_WR)
            else:
                client.setblocking(False)
                client.send(draw.some() if what == 3 else draw.choice(_PIECES))


def _step(served: Connections, clock: _Clock) -> None:
    """One round of `run`, without waiting."""
    clock.now += _ROUND
    for key, _ in served._selector.select(0):
        if key.fileobj is served._listening:
            served._accept()
        elif key.fileobj in served._incomplete:
            served._read(key.data)
    served._look_at_the_clock()


def _check_sent(reply: bytes) -> None:
    reply = reply.removeprefix(message.CONTINUE)
    if reply:
        match = re.match(rb"HTTP/1\.1 ([0-9]{3}) ", reply)
        assert match, "no reply of HTTP"
        assert int(match[1]) in _STATUSES
        length = re.search(rb"Content-Length: ([0-9]+)\r\n", reply)
        assert length
        assert len(reply.partition(b"\r\n\r\n")[2]) in {0, int(length[1])}, "a reply was cut off"


TARGETS = (
    Target("request", "requests to the local API", check_request, _REQUESTS, _REQUEST_WORDS),
    Target(
        "connections",
        "connections to the local API",
        check_connections,
        (bytes(8), bytes(range(200)), b"\x00\x04\x00\x05" * 9),
        longest=512,
    ),
)
