"""A server that a test controls down to the bytes; and addresses that do not answer."""

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
    """Calls the test's function with each connection and its number from 0, in a thread of its own."""

    def __init__(self, behaviour: Callable[[Peer, socket.socket, int], None]) -> None:
        self._behaviour = behaviour
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self.over = threading.Event()
        """Set at the end of the test, so that threads that wait can stop."""
        self.connections = 0
        self.requests: list[bytes] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/token"

    def read(self, connection: socket.socket) -> bytes:
        """Read and record a whole request; b"" if the client closed."""
        data = request_of(connection)
        if not data:
            return b""
        with self._changed:
            self.requests.append(data)
            self._changed.notify_all()
        return self.requests[-1]

    def wait_for(self, connections: int) -> None:
        """Wait until that many connections were accepted."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.connections >= connections, WITHIN)

    def serve(self) -> None:
        """Accept connections until the listener is shut down."""
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
        """Wait for all threads."""
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
    """Answer each request, with keep-alive."""
    while _peer.read(connection):
        connection.sendall(OK)


@contextmanager
def refusing() -> Iterator[int]:
    """A port of loopback that refuses connections: it is bound, but not listening."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextmanager
def blackhole() -> Iterator[int]:
    """A port of loopback that does not answer: its backlog is full, so the kernel drops each SYN."""
    with socket.socket() as listener, socket.socket() as filling:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        filling.connect(listener.getsockname())
        yield listener.getsockname()[1]


def resolve(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[int, str, int]) -> None:
    """Resolve every name to these addresses: (family, host, port)."""
    found = [(family, socket.SOCK_STREAM, 0, "", (host, port)) for family, host, port in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
