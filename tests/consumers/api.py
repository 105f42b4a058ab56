"""The demo's protected API as the consumers need it: metrics, remote write, a git repository, behind one check.

Each host name of the page has a server and a count of its own, so that who asked is known by the port.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bearerd.demo.provider import Provider


class Count:
    """What came of the requests to one host."""

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._tokens: list[str] = []
        self.accepted = 0
        self.refused = 0

    @property
    def refreshes(self) -> int:
        """How many other tokens followed the first."""
        return max(0, len(self._tokens) - 1)

    def note(self, authorization: str, *, good: bool) -> None:
        """Count a request."""
        with self._changed:
            if good:
                self.accepted += 1
            else:
                self.refused += 1
            if good and authorization not in self._tokens:
                self._tokens.append(authorization)
            self._changed.notify_all()


class Api:
    """A host of the page: where it is on this machine, and what was asked there."""

    def __init__(self, port: int, count: Count) -> None:
        self.port = port
        self.count = count

    @property
    def place(self) -> str:
        """In place of the page's `api.example.com`."""
        return f"127.0.0.1:{self.port}"


@contextmanager
def guarding(provider: Provider, repositories: Path, changed: threading.Condition) -> Iterator[Api]:
    """An API that takes this provider's tokens, for the length of a with block."""
    count = Count(changed)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 120  # a proxy that uses a connection again just when it is closed has a fault

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            authorization = self.headers.get("Authorization", "")
            status, _ = provider.call(authorization)
            count.note(authorization, good=status == 200)
            if status != 200:
                self._answer(status, b"")
            elif ".git/" in self.path:
                self._git(body)
            elif self.path == "/api/v1/write":
                self._answer(204, b"")
            else:
                # Metrics to whoever asks for them, companies to the others, to both the same bytes.
                self._answer(200, b"companies 2\n", "text/plain; version=0.0.4")

        def _answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _git(self, body: bytes) -> None:
            path, _, query = self.path.partition("?")
            variables = {
                "GIT_PROJECT_ROOT": str(repositories),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_CONFIG_GLOBAL": os.devnull,
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "PATH": os.environ.get("PATH", os.defpath),
                "REQUEST_METHOD": self.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            }
            done = subprocess.run(["git", "http-backend"], env=variables, input=body, capture_output=True, check=True)
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
            self._answer(int(fields.pop("Status", "200")[:3]), content, fields["Content-Type"])

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            with suppress(OSError):  # consumers are ended in the midst of what they do
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield Api(server.server_port, count)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
