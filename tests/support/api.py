"""The local API from the outside: a config with its control socket, and something else that answers at one."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bearerd.cli.ask import NoAnswer, ask_status
from support.process import eventually
from support.server import request_of


class Site:
    """A config of a few tokens of one client, in a directory of its own."""

    def __init__(self, path: Path, url: str, tokens: str = "{bci: {scope: bci}}", top: str = "") -> None:
        self.path, self.url, self.top = path, url, top
        self.config, self.tokens = path / "config.yaml", path / "t"  # short: a socket's path is at most 107 bytes
        self.socket = self.tokens / ".bearerd/control.sock"
        (path / "secret").write_text("s3cr3t")
        (path / "secret").chmod(0o600)
        self.write(tokens)

    def write(self, tokens: str) -> None:
        """The config with other tokens."""
        self.config.write_text(
            f"{self.top}\noutput: {{directory: {self.tokens}}}\nclients:\n  dnb:\n    token_url: {self.url}\n"
            f"    allow_http: true\n    timeout: 10m\n    client_id: a\n"
            f"    client_secret: {{file: {self.path}/secret}}\n    tokens: {tokens}\n"
        )

    def status(self) -> dict[str, Any]:
        """The daemon's status; empty without a daemon."""
        try:
            return ask_status(str(self.socket))[0]
        except NoAnswer:
            return {"tokens": []}

    def states(self) -> dict[str, str]:
        """Each token's state."""
        return {token["token"]: token["state"] for token in self.status()["tokens"]}

    def wait_for(self, **states: str) -> None:
        """Until these tokens, and no others, are in these states."""
        eventually(lambda: self.states() == states)


def http(status: int, body: object) -> bytes:
    """A whole response; a body that is no bytes as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode() + b"\n"
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(content), content)


@contextmanager
def answering(path: Path, script: Callable[[str], bytes | Iterator[bytes]]) -> Iterator[list[str]]:
    """A fake daemon: `script` maps `GET /status` to the bytes of the answer. Yields the requests."""
    path.parent.mkdir(parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    asked: list[str] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # shut
                return
            with connection, suppress(OSError):
                asked.append(request_of(connection).decode().partition(" HTTP/")[0])
                answer = script(asked[-1])
                for part in [answer] if isinstance(answer, bytes) else answer:
                    connection.sendall(part)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield asked
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()
        path.unlink(missing_ok=True)
