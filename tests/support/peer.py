"""A server that does as it is told, down to the bytes; and addresses that do not answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import pytest

from support.process import WITHIN
from support.server import request_of

OK: Final = b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"access_token":"t"}'


class Peer:
    """Hands each connection, with its number from 0, to the test's function in a thread of its own."""

    def __init__(self, behaviour: Callable[[Peer, socket.socket, int], None]) -> None:
        self._behaviour = behaviour
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self.over = threading.Event()
        """The test is done: whoever waits for nothing can stop."""
        self.connections = 0
        self.requests: list[bytes] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/token"

    def read(self, connection: socket.socket) -> bytes:
        """One whole request, noted; or b"" when the other end closed."""
        data = request_of(connection)
        if not data:
            return b""
        with self._changed:
            self.requests.append(data)
            self._changed.notify_all()
        return self.requests[-1]

    def wait_for(self, connections: int) -> None:
        """Until that many were accepted."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.connections >= connections, WITHIN)

    def serve(self) -> None:
        """Accept until the listener is shut down."""
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with self._changed:
                number, self.connections = self.connections, self.connections + 1
                self._changed.notify_all()
            thread = threading.Thread(target=self._handle, args=(connection, number), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _handle(self, connection: socket.socket, number: int) -> None:
        with connection, suppress(OSError):
            self._behaviour(self, connection, number)

    def join(self) -> None:
        """Wait for all that is under way."""
        for thread in self._threads:
            thread.join(WITHIN)
            assert not thread.is_alive()


@contextmanager
def peer(behaviour: Callable[[Peer, socket.socket, int], None]) -> Iterator[Peer]:
    it = Peer(behaviour)
    thread = threading.Thread(target=it.serve, daemon=True)
    thread.start()
    try:
        yield it
    finally:
        it.over.set()
        it.listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        it.listener.close()
        it.join()


def answering(_peer: Peer, connection: socket.socket, _number: int) -> None:
    """Keep-alive: an answer to each request."""
    while _peer.read(connection):
        connection.sendall(OK)


@contextmanager
def refusing() -> Iterator[int]:
    """A port of loopback that refuses connections: it is taken, but nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextmanager
def blackhole() -> Iterator[int]:
    """A port of loopback that answers nobody: its queue of connections is full, so the kernel drops each SYN."""
    with socket.socket() as listener, socket.socket() as filling:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        filling.connect(listener.getsockname())
        yield listener.getsockname()[1]


def resolve(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[int, str, int]) -> None:
    """Let every name have these addresses: (family, host, port)."""
    found = [(family, socket.SOCK_STREAM, 0, "", (host, port)) for family, host, port in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
