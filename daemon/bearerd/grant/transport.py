"""The one user of urllib3: sends a request over connections that report to their attempt.

requests is not used: of its session only the adapter would be right for a request with a secret, and above urllib3 that
costs 4 MB and a sixth of a grant's CPU (docs/performance.md). Nothing is followed (307 would post the form with the
secret to the other host), sent again or decompressed without a bound, proxy variables and ~/.netrc are ignored, and TLS
trusts only the given contexts.
"""

from __future__ import annotations

import io
import re
import socket
import ssl
import time
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse, parse_headers
from typing import Any, Final, cast

from urllib3 import BaseHTTPResponse, PoolManager, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError
from urllib3.util import parse_url, wait_for_read

from bearerd.grant.body import LONGEST_BODY
from bearerd.grant.connecting import connect
from bearerd.grant.deadline import PROMPT, current_attempt
from bearerd.grant.decoding import decoded
from bearerd.grant.heads import BoundedReader
from bearerd.grant.proxy import proxy_of
from bearerd.grant.reply import Reply
from bearerd.grant.request import Request
from bearerd.grant.socks import connect_through
from bearerd.handoff import waiting
from bearerd.model import Provider

FAULTS: Final = (OSError, HTTPException, HTTPError)
"""What `exchange` raises for a fault of the network or of the server; anything else is no memory, or a bug."""


class Transport:
    """Connections to one provider, with one set of trusted authorities and at most one client certificate."""

    def __init__(
        self, provider: Provider, context: ssl.SSLContext | None, proxy_context: ssl.SSLContext | None
    ) -> None:
        self._timeout = provider.timeout
        self._manager = _manager(provider, context, proxy_context)
        self._last: tuple[str, HTTPConnectionPool, str] | None = None

    def exchange(self, request: Request) -> Reply:
        """Send a request and read its reply; raises what the libraries raise."""
        pool, target = self._route(request.url)
        response = pool.urlopen(
            "GET" if request.body is None else "POST",
            target,
            request.body,
            self._headers(request),
            retries=False,
            redirect=False,
            assert_same_host=False,  # the target of a request through a proxy is a whole URL
            timeout=self._timeout,
            preload_content=False,
            decode_content=False,
        )
        try:
            current_attempt().phase = "read"
            body = _read(response)
        finally:
            if not response.closed:
                response.close()
                response.release_conn()
        # By name, a header that was sent twice is one, joined with a comma.
        headers = {name.lower(): response.headers[name] for name in response.headers}
        body, fault = decoded(body, headers.get("content-encoding", ""))
        return Reply(response.status, headers, body, fault)

    def close(self) -> None:
        """Close the connections that are kept."""
        self._manager.clear()

    def _route(self, url: str) -> tuple[HTTPConnectionPool, str]:
        """The pool for a URL, and the target of the request line. They are the same nearly each time."""
        last = self._last
        if last is None or last[0] != url:
            parsed = parse_url(url)
            last = self._last = (
                url,
                self._manager.connection_from_host(parsed.host, parsed.port, parsed.scheme),
                parsed.url if self._is_forwarded(url) else parsed.request_uri,
            )
        return last[1:]

    def _headers(self, request: Request) -> dict[str, str]:
        """The headers, and for a proxy that forwards the request its login. A tunnel has its own."""
        proxy = current_attempt().proxy
        if proxy is None or not proxy.authorization or not self._is_forwarded(request.url):
            return request.headers
        return request.headers | {"Proxy-Authorization": proxy.authorization}

    def _is_forwarded(self, url: str) -> bool:
        """Whether a proxy reads the request. It wants the whole URL then (RFC 9112 section 3.2.2)."""
        return isinstance(self._manager, ProxyManager) and not url.startswith("https:")


def _read(response: BaseHTTPResponse) -> bytes:
    """The body as it was sent, up to one byte beyond LONGEST_BODY."""
    parts: list[bytes] = []
    size = 0
    while size <= LONGEST_BODY:
        part: bytes = response.read(LONGEST_BODY + 1 - size, decode_content=False)
        if not part:
            break
        parts.append(part)
        size += len(part)
    return b"".join(parts)


class _Raw(io.RawIOBase):
    """The bytes from a socket. Another turn may compute meanwhile, unless the provider answers at once."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> Any:
        attempt = current_attempt()
        if attempt.prompt and wait_for_read(self._sock, PROMPT):
            size = self._raw.readinto(buffer)
        else:
            began = time.monotonic()
            with waiting():
                size = self._raw.readinto(buffer)
                attempt.prompt = time.monotonic() - began < PROMPT
        # A server that answers, be it with an interim reply, has seen the request.
        attempt.may_be_stale &= not size
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()


_REPEATED: Final = re.compile(r"([0-9]{1,18})([ \t]*,[ \t]*\1)+")


class _Response(HTTPResponse):
    """Reads within the attempt's bounds, and skips interim replies (RFC 9110 section 15.2).

    http.client skips only 100. After any other, the final reply would be read as the reply to the next request on
    this connection, and give one target's token to another.
    """

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._allowance = current_attempt().heads
        self.fp: Any = BoundedReader(_Raw(self.fp.detach(), sock), self._allowance)

    def begin(self) -> None:
        super().begin()
        # A server and the proxy in front of it may each add the length (RFC 9110 section 8.6). For http.client that is
        # none, and it would wait for the end of the connection.
        if self.length is None and not self.chunked:
            length = _REPEATED.fullmatch(self.headers.get("Content-Length", ""))
            self.length = int(length[1]) if length else None
        # After 101 the other end speaks no HTTP, or has yet to send the reply to this request. Behind a load balancer a
        # connection stays with its backend, which may be the one that fails.
        if self.status == HTTPStatus.SWITCHING_PROTOCOLS or self.status >= 500:  # noqa: PLR2004
            self.will_close = True

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            status: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]  # typeshed leaves it out
            if not 100 <= status[1] <= 199 or status[1] == HTTPStatus.SWITCHING_PROTOCOLS:  # noqa: PLR2004
                return status
            self._allowance.take_interim_reply()
            parse_headers(self.fp)


class _TunnelResponse(_Response):
    """The answer to CONNECT. Any 2xx is success (RFC 9110 section 9.3.6), for http.client only 200."""

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()
        return version, 200 if 200 <= status <= 299 else status, reason  # noqa: PLR2004


class _Reporting:
    """Both kinds of connection report the phase, and register their sockets with the alarm."""

    _answered = False
    _parts: list[bytes] | None = None

    def _new_conn(self) -> socket.socket:
        this = cast("HTTPConnection", self)
        # urllib3 reuses the object of a closed connection.
        self._answered = False
        host = (this._dns_host, this.port or 0)  # noqa: SLF001 - the name to look up, with a dot at its end if it has one
        proxy, options = current_attempt().proxy, this.socket_options or ()
        socks = proxy is not None and proxy.is_socks
        connection = connect_through(proxy, host, options) if proxy and socks else connect(host, options)
        current_attempt().phase = "TLS" if isinstance(self, HTTPSConnection) else "send"
        return connection

    def request(self, *args: Any, **kwargs: Any) -> None:
        attempt = current_attempt()
        current = cast("HTTPConnection", self).sock
        attempt.may_be_stale = self._answered and current is not None
        if current is not None:
            attempt.watch(current.fileno())
            attempt.phase = "send"
        # http.client sends the head, and then the body. One segment is enough for both.
        parts: list[bytes] = []
        self._parts = parts
        try:
            super().request(*args, **kwargs)  # type: ignore[misc]
        finally:
            self._parts = None
        super().send(b"".join(parts))  # type: ignore[misc]

    def send(self, data: Any) -> None:
        if self._parts is None:
            super().send(data)  # type: ignore[misc]
        else:
            self._parts.append(data)

    def getresponse(self) -> Any:
        attempt = current_attempt()
        attempt.phase = "wait"
        response = super().getresponse()  # type: ignore[misc]
        if attempt.expired:
            # Headers that the alarm cut off look complete.
            response.close()
            raise TimeoutError
        self._answered = True
        return response


class _HTTPConnection(_Reporting, HTTPConnection):
    response_class = _Response

    def connect(self) -> None:
        with waiting():
            super().connect()


class _HTTPSConnection(_Reporting, HTTPSConnection):
    response_class = _Response
    _tunnel_headers: dict[str, str]  # of http.client; typeshed leaves it out

    def connect(self) -> None:
        with waiting():  # for the handshake as well
            super().connect()

    def request(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().request(*args, **kwargs)
        except OSError:
            # In TLS 1.3 a server that refuses the certificate sends an alert and closes before it reads the request.
            if self.sock is not None:
                with suppress(ConnectionError, TimeoutError, ssl.SSLEOFError):
                    self.sock.recv(1)
            raise

    def _tunnel(self) -> None:
        attempt = current_attempt()
        # A proxy that does not answer is probably waiting for the provider.
        attempt.phase = "connect"
        # Not by way of the pool, which would keep it.
        if attempt.proxy is not None and attempt.proxy.authorization:
            self._tunnel_headers["Proxy-Authorization"] = attempt.proxy.authorization
        self.response_class = _TunnelResponse
        try:
            super()._tunnel()
        finally:
            del self.response_class
            self._tunnel_headers.pop("Proxy-Authorization", None)
        if attempt.expired:  # as in getresponse
            raise TimeoutError
        attempt.phase = "TLS"


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


def _manager(provider: Provider, context: ssl.SSLContext | None, proxy_context: ssl.SSLContext | None) -> PoolManager:
    tls = {"ssl_context": context, "cert_reqs": "CERT_REQUIRED"} if context else {}
    # At most two hosts: those of the token endpoint and of the metadata.
    common: dict[str, Any] = {"num_pools": 2, "maxsize": provider.max_concurrency, **tls}
    proxy = proxy_of(provider)
    if provider.proxy and proxy and not proxy.is_socks:  # connections through SOCKS are made by `socks`
        # The context for the connection to an https proxy itself has no client certificate.
        manager: PoolManager = ProxyManager(provider.proxy, proxy_ssl_context=proxy_context, **common)
    else:
        manager = PoolManager(**common)
    manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
    return manager
