"""A real HTTP server on a free port of loopback, with answers from the test."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from support.process import WITHIN


@dataclass
class Seen:
    """A request as it was received."""

    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    port: int = 0
    """The port of the client. Two requests from one port used one connection."""
    certificate: bytes | None = None
    """The certificate of the client as DER, if it sent one."""


@dataclass
class Answer:
    """A response. A body that is not bytes is sent as JSON."""

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)


Script = Callable[[Seen], Answer]


class Server:
    """A running server: its `url`, the requests that it has `seen`, and `wait_for` a number of them."""

    def __init__(self, script: Script, port: int, scheme: str) -> None:
        self.script = script
        self.port = port
        self.url = f"{scheme}://127.0.0.1:{port}/token"
        self.seen: list[Seen] = []
        self._changed = threading.Condition()

    def answer(self, seen: Seen) -> Answer:
        """Record the request and return the script's answer."""
        with self._changed:
            self.seen.append(seen)
            self._changed.notify_all()
        return self.script(seen)

    def wait_for(self, count: int, within: float = WITHIN) -> None:
        """Wait until that many requests were received."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.seen) >= count, within), f"only {len(self.seen)} requests"


@contextmanager
def serving(script: Script, context: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Run a server during the block, with TLS if there is a context."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = WITHIN

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            line = self.connection
            certificate = line.getpeercert(binary_form=True) if isinstance(line, ssl.SSLSocket) else None
            seen = Seen(self.command, self.path, headers, body, self.client_address[1], certificate)
            answer = server.answer(seen)
            content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            # Without a Date header: in a test with its own clock it would be months off.
            self.send_response_only(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if "Content-Length" not in answer.headers:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_CONNECT = _serve  # noqa: N815 - http.server's names

        def log_message(self, *_: Any) -> None:
            pass

        def handle(self) -> None:
            with suppress(OSError, ValueError):  # the client closed the connection, as in many tests
                super().handle()

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128  # a burst beyond it would wait for a second until it is sent again

        def handle_error(self, *_: Any) -> None:
            pass

    listener = Quiet(("127.0.0.1", 0), Handler)
    if context is not None:
        listener.socket = context.wrap_socket(listener.socket, server_side=True, do_handshake_on_connect=False)
    server = Server(script, listener.server_port, "https" if context else "http")
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


def issues(lifetime: float = 3600, **more: Any) -> Script:
    """A script that issues a new token for each request: `t-1`, `t-2` and so on."""
    lock, count = threading.Lock(), 0

    def script(_: Seen) -> Answer:
        nonlocal count
        with lock:
            count += 1
            return Answer(200, {"access_token": f"t-{count}", "token_type": "Bearer", "expires_in": lifetime} | more)

    return script


def request_of(connection: socket.socket) -> bytes:
    """One whole request, or b"" if the client closed. Unread bytes would turn a close into a reset."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return b""
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            while len(body) < int(line.split(b":")[1]):
                part = connection.recv(65536)
                if not part:
                    return b""
                body += part
    return head + b"\r\n\r\n" + body
