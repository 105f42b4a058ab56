"""A server that speaks the protocol of Redis, and answers what a test wants: errors, lies and garbage."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

Answers = Callable[[list[bytes]], bytes | Iterable[bytes]]
"""From a command to its answer, in one piece or in several."""


def bulk(*parts: bytes) -> bytes:
    """An array of texts."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def usual(command: list[bytes]) -> bytes:
    """The answers to everything but scripts."""
    match command[0]:
        case b"PING":
            return b"+PONG\r\n"
        case b"SUBSCRIBE":
            return b"*3\r\n" + b"$9\r\nsubscribe\r\n" + b"$%d\r\n%s\r\n" % (len(command[1]), command[1]) + b":1\r\n"
        case _:
            return b"+OK\r\n"


@contextmanager
def answering(answers: Answers) -> Iterator[str]:
    """Run the server during the block, and return its URL."""
    stop = threading.Event()
    open_now: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        with suppress(OSError, ValueError), connection, connection.makefile("rb") as lines:
            while (head := lines.readline()).startswith(b"*"):
                command = []
                for _ in range(int(head[1:])):
                    size = int(lines.readline()[1:])
                    command.append(lines.read(size + 2)[:-2])
                answer = answers(command)
                for piece in [answer] if isinstance(answer, bytes) else answer:
                    connection.sendall(piece)
                    if stop.is_set():
                        return

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                open_now.append(connection)
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stop.set()
            for each in (listener, *open_now):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
