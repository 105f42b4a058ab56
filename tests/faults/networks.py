"""Networks and servers that misbehave when a token is due: TCP, HTTP and TLS."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from faults.judge import Row, tried
from faults.place import Place, Rig, canaries, kept, recovers
from support.peer import Peer, peer
from support.process import eventually
from support.provider import Provider
from support.server import Seen

LIFETIME: Final = 60.0
"""Seconds of a token. A malformed reply is followed by another attempt at half of what remains."""
_AT_ONCE: Final = 5
"""Faults at the same time: they mostly wait."""
_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"

Act = Callable[[socket.socket, Peer], object]
"""What a server does with a connection, after the request if there was one."""


@dataclass(frozen=True)
class Fault:
    """A fault with its place in the exchange, and a word of the error."""

    word: str
    accepted: Act | None = None
    """Instead of reading the request."""
    answered: Act | None = None
    """Instead of the reply."""
    rule: str = ""
    """A verdict of nftables on packets to the server."""


def _reset(connection: socket.socket, _: Peer) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _silence(_: socket.socket, it: Peer) -> None:
    it.over.wait(5.0)


def _drip(connection: socket.socket, it: Peer) -> None:
    for byte in _HEAD + b"Content-Length: 99\r\n\r\n" + b" " * 99:
        if it.over.wait(0.2):
            return
        connection.sendall(bytes([byte]))


def _endless(connection: socket.socket, _: Peer) -> None:
    connection.sendall(_HEAD + b"\r\n")
    while True:
        connection.sendall(b" " * 65536)


def _sends(data: bytes) -> Act:
    return lambda connection, _: connection.sendall(data)


def _reply(body: bytes, status: str = "200 OK", *headers: str) -> Act:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", ""]
    return _sends("\r\n".join(lines).encode() + body)


_BOMB: Final = gzip.compress(b"[" + b" " * (64 << 20) + b"]", mtime=0)
"""64 MB of blanks in 64 KB."""
TCP: Final[Mapping[str, Fault]] = {
    "packets to the provider vanish": Fault("timed out", rule="drop"),
    "connections are reset": Fault("refused", rule="reject with tcp reset"),
    "a host is unreachable (ICMP)": Fault("", rule="reject with icmp type host-unreachable"),
    "it accepts, and is silent": Fault("timed out", accepted=_silence),
    "it reads, and is silent": Fault("timed out", answered=_silence),
    "it resets after the request": Fault("reset", answered=_reset),
    "it closes after the request": Fault("closed", answered=lambda *_: None),
    "it sends a byte each 0.2 s": Fault("", answered=_drip),
    "an endless body": Fault("", answered=_endless),
    "half a body": Fault("", answered=_sends(_HEAD + b'Content-Length: 99\r\n\r\n{"access')),
    "a gzip bomb": Fault("", answered=_reply(_BOMB, "200 OK", "Content-Encoding: gzip")),
    "a redirect": Fault("redirect", answered=_reply(b"", "302 Found", "Location: http://127.0.0.1:9/")),
    "HTML with status 200": Fault("", answered=_reply(b"<html>Sorry</html>", "200 OK", "Content-Type: text/html")),
    "an empty 200": Fault("", answered=_reply(b"")),
    "500": Fault("500", answered=_reply(b"", "500 Internal Server Error")),
    "502": Fault("502", answered=_reply(b"", "502 Bad Gateway")),
    "503 with Retry-After: 3": Fault("503", answered=_reply(b"", "503 Service Unavailable", "Retry-After: 3")),
    "504": Fault("504", answered=_reply(b"", "504 Gateway Timeout")),
    "not HTTP": Fault("", answered=_sends(b"220 mail.example.com ESMTP\r\n")),
}
_LATE: Final = ("HTML with status 200", "an empty 200", "a redirect", "a gzip bomb", "an endless body", "not HTTP")
"""Faults after which bearerd waits for a minute, or until a last attempt before the expiry."""


class Switch:
    """A provider that misbehaves while `fault` is set, plainly or in TLS."""

    def __init__(self, provider: Provider, context: ssl.SSLContext | None = None) -> None:
        self.provider, self.context = provider, context
        self.fault: Fault | None = None
        self.bad_context: ssl.SSLContext | None = None
        """Replaces the context during a fault."""
        self.idle: list[int] = []
        """The client's ports of connections that answered once."""
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()

    def hang_up(self) -> None:
        """Close the connections that are open, as a server does with idle ones."""
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __call__(self, it: Peer, connection: socket.socket, _: int) -> None:
        fault = self.fault
        if fault and fault.accepted:
            fault.accepted(connection, it)
            return
        context = self.bad_context if fault and self.bad_context else self.context
        if context is not None:
            connection = context.wrap_socket(connection, server_side=True)
        with connection:
            self._open.append(connection)
            while request := it.read(connection):
                if self.fault and self.fault.answered:
                    self.fault.answered(connection, it)
                    return
                with self._lock:
                    answer = self.provider(_seen(request))
                body = json.dumps(answer.body).encode() if answer.body else b""
                _reply(body, f"{answer.status} X")(connection, it)
                self.idle.append(int(connection.getpeername()[1]))


def _seen(request: bytes) -> Seen:
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return Seen("POST", lines[0].split()[1], headers, body)


@contextmanager
def switched(
    path: Path, context: ssl.SSLContext | None = None, name: str = "127.0.0.1", client: str = ""
) -> Iterator[tuple[Place, Switch, int]]:
    """A place whose provider is a Switch; with its port."""
    switch = Switch(canaries(LIFETIME), context)
    with peer(switch) as it:
        url = f"{'https' if context else 'http'}://{name}:{it.port}/token"
        try:
            yield Place(path, switch.provider, url, f"timeout: 2s, {client}"), switch, it.port
        finally:
            switch.hang_up()  # the server may not have seen the end of a connection


def each(faults: Mapping[str, Any], one: Callable[[Path, str, Any], Row], path: Path) -> list[Row]:
    """A row for each of them, several at the same time."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        numbered = enumerate(faults.items())
        return list(pool.map(lambda item: one(path / str(item[0]), *item[1]), numbered))


def tcp(rig: Rig, path: Path) -> list[Row]:
    """Faults of TCP and HTTP, and a pooled connection whose other end is gone."""
    for line in ("add table inet faults", "add chain inet faults c { type filter hook input priority 0; }"):
        subprocess.run(["nft", line], check=True)
    late = {name: TCP[name] for name in _LATE[:2]}
    quick = {name: fault for name, fault in TCP.items() if name not in _LATE}
    return [*each({**late, **quick} if rig.short else {**TCP}, _tcp, path), _half_open(path / "half-open")]


def _tcp(path: Path, name: str, fault: Fault) -> Row:
    row = Row(name)
    with tried(row), switched(path) as (here, switch, port), kept(here, row):
        grants = here.provider.grants
        if fault.rule:
            _rule(f"tcp dport {port} {fault.rule}")
        switch.fault = fault
        if fault.accepted:
            switch.hang_up()
        here.refresh()
        fails(here, row, fault.word)
        switch.fault = None
        if fault.rule:
            _no_rule(port)
        recovers(here, row, grants)
    return row


def fails(here: Place, row: Row, word: str) -> None:
    """Wait for an error in the status that names the cause, while the token stays.

    On a busy machine the first attempts may time out before they meet the cause.
    """
    status: dict[str, Any] = {}

    def named() -> bool:
        status.update(here.status())
        error = status.get("last_error")
        return error is not None and word.casefold() in error.casefold()

    with suppress(AssertionError):
        eventually(named)
    row.expect(named(), f"the error does not say {word!r}: {status.get('last_error')}")
    row.expect(status.get("state") in {"valid", "failing"}, f"the token is {status.get('state')}")
    row.output(str(status), "the status")


def _half_open(path: Path) -> Row:
    """The packets of the pooled connection vanish, as after a restart of a firewall; new connections work."""
    row = Row("a pooled connection is dead, and new ones work")
    with tried(row), switched(path) as (here, switch, _), kept(here, row):
        eventually(lambda: switch.idle)
        _rule(f"tcp sport {switch.idle[-1]} drop")
        grants = here.provider.grants
        here.refresh()
        recovers(here, row, grants)
        _no_rule(switch.idle[0])
    return row


def _rule(text: str) -> None:
    subprocess.run(["nft", f"add rule inet faults c {text}"], check=True)


def _no_rule(port: int) -> None:
    listed = subprocess.run(["nft", "-aj", "list", "chain", "inet", "faults", "c"], check=True, capture_output=True)
    for item in json.loads(listed.stdout)["nftables"]:
        if "rule" in item and str(port) in json.dumps(item["rule"]["expr"]):
            subprocess.run(["nft", f"delete rule inet faults c handle {item['rule']['handle']}"], check=True)
