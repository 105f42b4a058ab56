"""A token server with the protocol of the Dun & Bradstreet APIs, and an API that accepts its tokens. Loopback only.

It takes Basic authentication and a form, and returns opaque tokens, 401 `invalid_client` and 401 `invalid_token`.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, unquote

TOKEN_PATH: Final = "/as/token.oauth2"  # noqa: S105 - a path
API_PATH: Final = "/bci/v1/companies"
# Bytes. The demo's form has about forty.
_MOST_FORM: Final = 64 * 1024


class Provider:
    """Issues tokens with a lifetime of `ttl` seconds to one client, and serves an API that requires one."""

    def __init__(
        self, client_id: str, client_secret: str, ttl: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = (client_id, client_secret)
        self._ttl = ttl
        self._clock = clock
        self._lock = threading.Lock()
        self._expires: dict[str, float] = {}
        self.grants = 0
        self.calls = 0
        self.refused = 0

    def grant(self, authorization: str, form: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        """The token endpoint: status and JSON."""
        if _basic(authorization) != self._client:
            return 401, {"error": "invalid_client", "error_description": "Bad credentials"}
        if form.get("grant_type") != ["client_credentials"]:
            return 400, {"error": "unsupported_grant_type"}
        token = str(uuid.uuid4())
        with self._lock:
            now = self._clock()
            self._expires = {known: until for known, until in self._expires.items() if until > now}
            self._expires[token] = now + self._ttl
            self.grants += 1
        scope = " ".join(form.get("scope", []))
        # Whole seconds, rounded down, as providers send them.
        return 200, {
            "access_token": token,
            "scope": scope,
            "token_type": "Bearer",
            "expires_in": int(self._ttl),
        }

    def call(self, authorization: str) -> tuple[int, dict[str, Any]]:
        """The protected API: status and JSON."""
        scheme, _, token = authorization.partition(" ")
        with self._lock:
            good = scheme == "Bearer" and self._expires.get(token, 0.0) > self._clock()
            self.calls += 1
            self.refused += not good
        if good:
            return 200, {"companies": ["Example AB", "Eksempel AS"]}
        return 401, {
            "error": "invalid_token",
            "error_description": "Invalid Token: token not found, expired or invalid",
        }


def serve(provider: Provider) -> ThreadingHTTPServer:
    """Serve the provider on a free loopback port, from a thread, until `shutdown`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30  # seconds for a connection without a request: the reader calls five times a second

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "0")
            if not length.isdecimal() or int(length) > _MOST_FORM:
                self._answer(413, {"error": "invalid_request"})
                return
            form = parse_qs(self.rfile.read(int(length)).decode("ascii", "replace"))
            if self.path != TOKEN_PATH:
                self._answer(404, {"error": "not_found"})
                return
            self._answer(*provider.grant(self.headers.get("Authorization", ""), form))

        def do_GET(self) -> None:
            if self.path != API_PATH:
                self._answer(404, {"error": "not_found"})
                return
            self._answer(*provider.call(self.headers.get("Authorization", "")))

        def _answer(self, status: int, document: dict[str, Any]) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's signature
            """Log nothing, because the table shows what happens."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="provider", daemon=True).start()
    return server


def _basic(authorization: str) -> tuple[str, str] | None:
    """Id and secret of HTTP Basic, each percent-decoded (RFC 6749 section 2.3.1)."""
    scheme, _, value = authorization.partition(" ")
    try:
        text = base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    name, colon, secret = text.partition(":")
    return (unquote(name), unquote(secret)) if scheme.lower() == "basic" and colon else None
