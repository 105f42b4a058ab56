"""A provider that knows everything it was sent, and puts it wherever a reply has room for text."""

from __future__ import annotations

import base64
import gzip
import json
import re
import secrets
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final
from urllib.parse import parse_qsl, unquote

from attacks.common import Listener
from support.server import request_of

Reply = Callable[[str, str], bytes]
"""From all that the request held, in one text, and a new token to a whole response."""
_ISSUED: Final = "application/json"


def _response(status: str, body: bytes | str, *headers: str, kind: str = _ISSUED) -> bytes:
    content = body if isinstance(body, bytes) else body.encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(content)}", *headers, "", ""]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + content


def _issued(**more: object) -> Callable[[str, str], str]:
    return lambda _echo, token: json.dumps(
        {"access_token": token, "token_type": "Bearer", "expires_in": 3600, "scope": "read", **more}
    )


def good(echo: str, token: str) -> bytes:
    """A token, with its id_token and refresh_token."""
    fields = {"id_token": f"{token}.id", "refresh_token": f"{token}.refresh", "data": {"access_token": token}}
    return _response("200 OK", _issued(**fields)(echo, token))


def _error(status: str, code: str = "invalid_client") -> Reply:
    return lambda echo, token: _response(
        status,
        json.dumps({"error": code, "error_description": f"{echo} {token}", "error_uri": f"https://x/{token}?{echo}"}),
        f'WWW-Authenticate: Bearer realm="{_line(echo)}", error="{token}"',
    )


def _line(text: str) -> str:
    return " ".join(text.split())[:4000]


REPLIES: Final[Mapping[str, Reply]] = {
    "refused": _error("401 Unauthorized"),
    "scope": _error("400 Bad Request", "invalid_scope"),
    "unknown-code": lambda echo, token: _response("400 Bad Request", json.dumps({"error": echo, "code": token})),
    "token-as-code": lambda echo, token: _response("400 Bad Request", json.dumps({"error": token, "message": echo})),
    "errcode": lambda echo, token: _response("200 OK", json.dumps({"errcode": token, "errmsg": echo})),
    "problem": lambda echo, token: _response(
        "403 Forbidden", json.dumps({"title": echo, "type": token, "detail": echo, "errors": [echo, token]})
    ),
    "down": _error("503 Service Unavailable", "server_error"),
    "bad-gateway": lambda echo, token: _response(
        "502 Bad Gateway", f"<html><title>{echo}</title>{token}</html>", f"Server: {_line(echo)}", kind="text/html"
    ),
    "challenge": lambda echo, token: _response(
        "403 Forbidden", f"<html>{echo}{token}</html>", f"cf-mitigated: {token}", kind="text/html"
    ),
    "limited": lambda echo, token: _response("429 Too Many Requests", echo, f"Retry-After: {token}", f"Date: {token}"),
    "reason": lambda echo, token: _response(f"500 {_line(echo)} {token}", echo),
    "redirect": lambda echo, token: _response("302 Found", echo, f"Location: https://x/{token}?{_line(echo)}"),
    "html": lambda echo, token: _response("200 OK", f"<html>{echo} {token}</html>", kind="text/html"),
    "list": lambda echo, token: _response("200 OK", json.dumps([token, echo])),
    "broken-json": lambda echo, token: _response("200 OK", f'{{"access_token": "{token}", "x": "{echo}'),
    "other-field": lambda echo, token: _response(
        "200 OK", json.dumps({token: echo, "token": token, "jwt": token, "data": {"accessToken": token, "e": echo}})
    ),
    "not-a-text": lambda echo, token: _response("200 OK", json.dumps({"access_token": {token: [echo]}})),
    "bad-token": lambda echo, token: _response("200 OK", json.dumps({"access_token": f"{token} \n{echo}"})),
    "lifetime": lambda echo, token: _response(
        "200 OK", json.dumps({"access_token": token, "expires_in": token, "expires_at": echo, "token_type": echo})
    ),
    "type": lambda echo, token: _response(
        "200 OK", json.dumps({"access_token": token, "token_type": token, "scope": echo, "expires_in": 3600})
    ),
    "expired": lambda echo, token: _response("200 OK", _issued(expires_in=0, note=echo)(echo, token)),
    "gzip": lambda echo, token: _response("200 OK", gzip.compress(echo.encode())[:-9], f"Content-Encoding: {token}"),
    "gzip-cut": lambda echo, token: _response(
        "200 OK", gzip.compress(f"{echo}{token}".encode())[:-9], "Content-Encoding: gzip"
    ),
    "status-line": lambda echo, token: f"{token} {_line(echo)}\r\n\r\n".encode(),
    "header": lambda echo, token: f"HTTP/1.1 200 OK\r\n{_line(echo)}\r\n{token}: {echo}\r\n\r\n".encode(),
    "chunk": lambda echo, token: f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{token}{echo}\r\n".encode(),
    "length": lambda echo, token: f"HTTP/1.1 200 OK\r\nContent-Length: {token}\r\n\r\n{echo}".encode(),
    "cut": lambda echo, token: f"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n{token}{echo}".encode(),
    "endless-header": lambda _, token: f"HTTP/1.1 200 OK\r\nX: {token * 3000}\r\n\r\n".encode(),
    "nested": lambda echo, token: _response("200 OK", '{"a":' * 40 + json.dumps(echo + token) + "}" * 40),
    "jwt": lambda echo, token: _response("200 OK", _issued()(echo, _jwt(token))),
}
"""Everything that a hostile or broken provider could answer, by the name of its client."""


def _jwt(token: str) -> str:
    parts = [{"alg": "none", "kid": token}, {"exp": "never", "nbf": token}]
    return ".".join([*(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts), ""])


class Provider(Listener):
    """A server with a reply for each path; it tells `keep` each token and each secret of a request."""

    def __init__(self, keep: Callable[[str, str], None], context: ssl.SSLContext | None = None) -> None:
        self.replies: dict[str, Reply] = {}
        """What differs from a token, by the name of a client."""
        self.served: list[str] = []
        self.hold = threading.Event()
        """Set while requests are answered."""
        self.hold.set()
        self._keep = keep
        self._context = context
        super().__init__()
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}"

    def serve(self, connection: socket.socket) -> None:
        """Answer each request of a connection."""
        connection.settimeout(30)
        with suppress(ValueError):
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            with connection:
                while request := request_of(connection):
                    self.hold.wait(30)
                    connection.sendall(self._answer(request))
                    if self.served[-1] in {"cut", "status-line", "header", "chunk", "length", "endless-header"}:
                        break

    def _answer(self, request: bytes) -> bytes:
        head, _, body = request.decode("utf-8", "surrogateescape").partition("\r\n\r\n")
        token = f"tok-{secrets.token_urlsafe(30)}"
        self._keep("token", token)
        name = "CONNECT" if head.startswith("CONNECT ") else head.split(" ")[1].rpartition("/")[2]
        self.served.append(name)
        reply = self.replies.get(name) or REPLIES.get(name, good)
        content = reply(_secrets_in(head, body), token)
        if reply is REPLIES["jwt"] and (found := re.search(rb'"access_token": "([^"]+)"', content)):
            self._keep("token", found[1].decode())
        return content


def _secrets_in(head: str, body: str) -> str:
    """Everything in a request that is worth hiding."""
    found = [line.partition(": ")[2] for line in head.split("\r\n") if re.match(r"(?i)(.*auth|x-)", line)]
    for value in list(found):
        if value.startswith("Basic "):
            with suppress(ValueError):
                found.append(unquote(base64.b64decode(value[6:]).decode()))
    found += [value for _, value in parse_qsl(body)] if "=" in body else [body]
    return " ".join([*found, body])
