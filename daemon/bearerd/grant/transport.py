"""The one user of requests and urllib3: sends a prepared request over connections that report to their attempt.

A session of requests does too much for a request with a secret, so only its adapter is used: no redirect is followed
(307 would post the form with the secret to the other host), proxy variables and ~/.netrc are ignored, nothing is
decompressed without a bound, and TLS trusts only the given contexts.
"""

from __future__ import annotations

import io
import socket
import ssl
import time
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse, RemoteDisconnected, parse_headers
from typing import Any, cast

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util import wait_for_read

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


class Transport:
    """Connections to one provider, with one set of trusted authorities and at most one client certificate."""

    def __init__(
        self, provider: Provider, context: ssl.SSLContext | None, proxy_context: ssl.SSLContext | None
    ) -> None:
        self._timeout = provider.timeout
        proxy = proxy_of(provider)
        # Connections through SOCKS are made by `socks`.
        self._proxies = {"all": provider.proxy} if provider.proxy and proxy and not proxy.is_socks else {}
        self._adapter = _Adapter(provider.max_concurrency, context, proxy_context)
        self._kept: requests.PreparedRequest | None = None

    def exchange(self, request: Request) -> Reply:
        """Send a request and read its reply; raises what the libraries raise."""
        prepared = self._prepare(request)
        response = self._adapter.send(prepared, stream=True, timeout=self._timeout, verify=True, proxies=self._proxies)
        try:
            current_attempt().phase = "read"
            body = _read(response)
        finally:
            if not response.raw.isclosed():
                response.close()
        headers = {name.lower(): value for name, value in response.headers.items()}
        body, fault = decoded(body, headers.get("content-encoding", ""))
        return Reply(response.status_code, headers, body, fault)

    def close(self) -> None:
        """Close the connections that are kept."""
        self._adapter.close()

    def _prepare(self, request: Request) -> requests.PreparedRequest:
        # Half of what requests does here is about the URL, and that is the same each time.
        method = "GET" if request.body is None else "POST"
        kept = self._kept
        if kept is None or (kept.method, kept.url) != (method, request.url):
            kept = requests.Request(method, request.url).prepare()
            self._kept = kept if kept.url == request.url else None
        prepared = kept.copy()
        prepared.prepare_headers(request.headers)
        proxy = current_attempt().proxy
        if proxy is not None and proxy.authorization and self._proxies and not request.url.startswith("https:"):
            prepared.headers["Proxy-Authorization"] = proxy.authorization
        prepared.prepare_body(request.body, None)
        return prepared


def _read(response: requests.Response) -> bytes:
    """The body as it was sent, up to one byte beyond LONGEST_BODY."""
    parts: list[bytes] = []
    size = 0
    while size <= LONGEST_BODY:
        part: bytes = response.raw.read(LONGEST_BODY + 1 - size, decode_content=False)
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
            return self._raw.readinto(buffer)
        began = time.monotonic()
        with waiting():
            size = self._raw.readinto(buffer)
            attempt.prompt = time.monotonic() - began < PROMPT
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(HTTPResponse):
    """Reads within the attempt's bounds, and skips interim replies (RFC 9110 section 15.2).

    http.client skips only 100. After any other, the final reply would be read as the reply to the next request on
    this connection, and give one target's token to another.
    """

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._allowance = current_attempt().heads
        self.fp: Any = BoundedReader(_Raw(self.fp.detach(), sock), self._allowance)

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            status: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]  # typeshed leaves it out
            if not 100 <= status[1] <= 199 or status[1] == HTTPStatus.SWITCHING_PROTOCOLS:  # noqa: PLR2004
                return status
            self._allowance.take_interim_reply()
            parse_headers(self.fp)


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
        # http.client sends the head by itself, and the body after it. One segment is enough for both.
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
        try:
            response = super().getresponse()  # type: ignore[misc]
        except HTTPException as error:
            # All other exceptions mean that some bytes of a reply came.
            attempt.may_be_stale &= isinstance(error, RemoteDisconnected)
            raise
        if attempt.expired:
            # Headers that the alarm cut off look complete.
            response.close()
            raise TimeoutError
        attempt.may_be_stale = False
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
        try:
            super()._tunnel()
        finally:
            self._tunnel_headers.pop("Proxy-Authorization", None)
        if attempt.expired:  # as in getresponse
            raise TimeoutError
        attempt.phase = "TLS"


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class _Adapter(HTTPAdapter):
    """The adapter of requests, with our connections and TLS contexts."""

    def __init__(self, size: int, context: ssl.SSLContext | None, proxy_context: ssl.SSLContext | None) -> None:
        self._context = context
        self._proxy_context = proxy_context
        # At most two hosts: those of the token endpoint and of the metadata.
        super().__init__(pool_connections=2, pool_maxsize=size)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self._use_our_connections(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        if self._proxy_context is not None:
            # For the connection to an https proxy itself, which gets no client certificate.
            kwargs["proxy_ssl_context"] = self._proxy_context
        manager = super().proxy_manager_for(proxy, **kwargs)
        self._use_our_connections(manager)
        return manager

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        host, tls = super().build_connection_pool_key_attributes(request, verify, cert)
        if self._context is not None:
            tls = {"ssl_context": self._context, "cert_reqs": "CERT_REQUIRED"}
        return host, tls

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Do nothing: the original adds certifi's authorities to those of the context."""

    @staticmethod
    def _use_our_connections(manager: Any) -> None:
        manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
