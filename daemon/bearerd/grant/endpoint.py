"""Sends a request to a provider: the one module that uses requests.

What requests does by itself is mostly wrong for a secret, so its adapter is used without a session:
no redirect is followed (307 posts the form, secret and all, to the other host), no proxy variable and no
~/.netrc is looked at, nothing is decompressed, and TLS trusts the system's store or `ca_file` alone.

One deadline covers the whole request. A timeout of requests starts anew at each read, so that a server
that drips can hold it for ever; here an alarm shuts the connection down when the time is up, wherever
the request is then. A name look-up cannot be ended: it runs in a thread of its own that is left behind.
"""

from __future__ import annotations

import heapq
import itertools
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from http import HTTPStatus
from http.client import BadStatusLine, HTTPException, HTTPResponse, RemoteDisconnected, parse_headers
from typing import Any, Final, cast
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from bearerd.grant.outcome import Phase
from bearerd.grant.reply import LONGEST_BODY, Reply
from bearerd.grant.request import Request
from bearerd.model import Provider

# A burst is over by then, and the other end closes idle connections after about a minute.
IDLE_CLOSE: Final = 30.0


@dataclass(frozen=True, slots=True)
class NoReply:
    """The request ended without a response: in which phase, and why."""

    phase: Phase
    reason: str
    hint: str | None = None


class Endpoint:
    """How a provider is reached: sends requests, from any number of threads at once.

    Who is authenticated by certificate has an endpoint to itself: its connections are.
    """

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._lock = threading.Lock()
        self._adapter: _Adapter | None = None
        self._made_of: object = None
        self._last_used = 0.0

    def send(self, request: Request) -> Reply | NoReply:
        """One request, within the provider's timeout; never raises, never follows, never shows."""
        attempt = _Attempt(self._provider.timeout)
        try:
            _alarm.set(attempt)
        except RuntimeError:
            return NoReply("set-up", "no thread could be started to watch over the deadline")
        with attempt.current():
            try:
                reply = self._send(request, attempt)
                if isinstance(reply, NoReply) and attempt.may_be_stale and not attempt.expired:
                    # The connection was kept from an earlier request and closed before the first byte of
                    # an answer: nobody saw this request. A second one goes over a new connection.
                    attempt.phase = "connect"
                    self.close()
                    reply = self._send(request, attempt)
            finally:
                attempt.end()
        return reply

    def close_idle(self) -> None:
        """Close connections that a burst left open."""
        if self._adapter is not None and time.monotonic() - self._last_used > IDLE_CLOSE:
            self.close()

    def close(self) -> None:
        """Close the connections that are kept; those in use end with their request."""
        with self._lock:
            adapter, self._adapter = self._adapter, None
        if adapter is not None:
            adapter.close()

    def _send(self, request: Request, attempt: _Attempt) -> Reply | NoReply:
        try:
            adapter = self._current_adapter(request)
        except _SetUpError as error:
            return NoReply("set-up", str(error))
        self._last_used = time.monotonic()
        try:
            method = "GET" if request.body is None else "POST"
            prepared = requests.Request(method, request.url, headers=request.headers, data=request.body).prepare()
            proxies = {"all": self._provider.proxy} if self._provider.proxy else {}
            response = adapter.send(prepared, stream=True, timeout=self._provider.timeout, verify=True, proxies=proxies)
            try:
                attempt.phase = "read"
                body = _read(response)
            finally:
                if not response.raw.isclosed():
                    response.close()
        except Exception as error:  # noqa: BLE001 - any failure to get a reply is one kind of value
            explained = _explain(error, attempt, self._provider, request.url)
            for cause in _causes(error):
                # It leads to frames that hold the request and its secret, and these lead back to it: an
                # idle process would keep them all, and the pool, until its garbage is collected one day.
                cause.__traceback__ = None
            return explained
        if attempt.expired:
            return _explain(TimeoutError(), attempt, self._provider, request.url)
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Reply(response.status_code, headers, body)

    def _current_adapter(self, request: Request) -> _Adapter:
        """The adapter, made anew when `ca_file`, the certificate or its key has changed; raises _SetUpError."""
        secure = urlsplit(request.url).scheme == "https" or self._provider.proxy is not None
        with self._lock:
            trust = _signature(self._provider.ca_file)
            # A digest: the key itself is not kept.
            identity = sha256(f"{request.certificate}\0{request.private_key}".encode()).digest()
            made_of = (secure, trust, identity)
            if self._adapter is None or made_of != self._made_of:
                shared = _context(self._provider.ca_file, trust) if secure else None
                own = shared
                if secure and request.certificate:
                    own = _own_context(self._provider.ca_file, request.certificate, request.private_key)
                self._adapter, self._made_of = _Adapter(self._provider, own, shared), made_of
            return self._adapter


def _read(response: requests.Response) -> bytes:
    """The body as it was sent, up to one byte more than is accepted."""
    parts: list[bytes] = []
    size = 0
    while size <= LONGEST_BODY:
        part: bytes = response.raw.read(LONGEST_BODY + 1 - size, decode_content=False)
        if not part:
            break
        parts.append(part)
        size += len(part)
    return b"".join(parts)


# -- TLS ---------------------------------------------------------------------------------------------


class _SetUpError(Exception):
    """What is ours to mend before a connection can be made."""


def set_up_fault(provider: Provider, certificate: str, private_key: str) -> str | None:
    """What would keep a connection from being made with this trust and this certificate ("" for none)."""
    try:
        if certificate:
            _own_context(provider.ca_file, certificate, private_key)
        else:
            _context(provider.ca_file, _signature(provider.ca_file))
    except _SetUpError as error:
        return str(error)
    return None


def _signature(path: str | None) -> object:
    if path is None:
        return None
    try:
        status = os.stat(path)
    except OSError as error:
        raise _SetUpError(f"ca_file {path}: {error.strerror}") from None
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)  # 0.7 MB each: shared by all providers that trust the same
def _context(ca_file: str | None, _signature_of_it: object) -> ssl.SSLContext:
    # Not ssl.create_default_context: it writes session keys to $SSLKEYLOGFILE.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        return context
    try:
        context.load_verify_locations(cafile=ca_file)
    except (OSError, ValueError) as error:
        # An SSLError, which is an OSError too, says it in OpenSSL's words.
        unread = error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else None
        raise _SetUpError(f"ca_file {ca_file}: {unread or 'holds no certificate'}") from None
    return context


def _own_context(ca_file: str | None, certificate: str, private_key: str) -> ssl.SSLContext:
    """A context that shows a certificate. OpenSSL reads both from files only: from memory, as the text was read."""
    context = _context.__wrapped__(ca_file, None)
    with _in_memory(certificate) as certificate_path, _in_memory(private_key) as key_path:
        try:
            # Without a password OpenSSL would ask the terminal for one.
            context.load_cert_chain(certificate_path, key_path, password=lambda: b"")
        except ssl.SSLError as error:
            if error.reason in {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}:
                reason = "certificate and private_key do not belong together"
            elif error.reason == "EE_KEY_TOO_SMALL":
                reason = "the certificate's key is too small to be taken by OpenSSL"
            elif "ENCRYPTED" in private_key:
                reason = "private_key is encrypted with a passphrase; decrypt it: openssl pkey -in FILE -out FILE"
            else:
                reason = "certificate or private_key is none in PEM"
            raise _SetUpError(reason) from None
    return context


@contextmanager
def _in_memory(text: str) -> Iterator[str]:
    """The path of a file that no file system holds and no other process sees."""
    descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "w", closefd=False) as file:
            file.write(text)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


# -- the deadline --------------------------------------------------------------------------------------


class _Alarm:
    """Calls attempts when their time is up, from one thread that sleeps while none is under way."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, _Attempt]] = []
        self._order = itertools.count()
        self._thread: threading.Thread | None = None

    def set(self, attempt: _Attempt) -> None:
        with self._changed:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                thread.start()
                # Not before: one that could not be started (TasksMax) is tried again by the next attempt.
                self._thread = thread
            heapq.heappush(self._heap, (attempt.deadline, next(self._order), attempt))
            if self._heap[0][2] is attempt:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                # Attempts that ended are dropped where they stand first; so an idle process never wakes.
                while self._heap and self._heap[0][2].ended:
                    heapq.heappop(self._heap)
                if not self._heap:
                    self._changed.wait()
                    continue
                left = self._heap[0][0] - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
                _, _, attempt = heapq.heappop(self._heap)
            attempt.expire()


_alarm = _Alarm()
_now = threading.local()


class _Attempt:
    """One request under way: its deadline, the phase it is in, and the connections to shut down."""

    def __init__(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        self.phase: Phase = "name look-up"
        self.may_be_stale = False
        self.ended = False
        self.expired = False
        self._lock = threading.Lock()
        self._lines: list[socket.socket] = []

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make this the attempt that connections of this thread report to."""
        _now.attempt = self
        try:
            yield
        finally:
            _now.attempt = None

    def left(self) -> float:
        """Seconds until the deadline; raises TimeoutError when there are none."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def watch(self, descriptor: int) -> None:
        """Shut this connection down at the deadline.

        A duplicate of the descriptor is kept: TLS moves the first into another object, and the end of
        a response closes it while the body is still being read.
        """
        line = socket.socket(fileno=os.dup(descriptor))
        with self._lock:
            self._lines.append(line)
            expired = self.expired
        if expired:
            self.expire()

    def expire(self) -> None:
        """The time is up: whoever waits on one of the connections is woken."""
        with self._lock:
            if self.ended:
                return
            self.expired = True
            for line in self._lines:
                with suppress(OSError):  # connected no more
                    line.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """The request is over."""
        with self._lock:
            self.ended = True
            for line in self._lines:
                line.close()
            self._lines.clear()


def _attempt() -> _Attempt:
    return cast("_Attempt", _now.attempt)


class _Lookups:
    """Name look-ups, each in a thread that can be left behind; one at a time for each name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[tuple[str, int], _Lookup] = {}

    def addresses(self, host: str, port: int, within: float) -> list[Any]:
        """What getaddrinfo says; raises TimeoutError, or what it raised."""
        key = (host, port)
        with self._lock:
            lookup = self._running.get(key)
            if lookup is None:
                lookup = _Lookup()
                threading.Thread(target=self._run, args=(key, lookup), name="look-up", daemon=True).start()
                # Not before: one that could not be started would be waited for by all who come later.
                self._running[key] = lookup
        if not lookup.done.wait(within):
            raise TimeoutError
        if lookup.error is not None:
            raise lookup.error
        return lookup.found

    def _run(self, key: tuple[str, int], lookup: _Lookup) -> None:
        try:
            lookup.found = socket.getaddrinfo(*key, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            lookup.error = error
        finally:
            with self._lock:
                del self._running[key]
            lookup.done.set()


class _Lookup:
    def __init__(self) -> None:
        self.done = threading.Event()
        self.found: list[Any] = []
        self.error: Exception | None = None


_lookups = _Lookups()


def _connect(host: str, port: int, options: Any) -> socket.socket:
    """A connection to the first address that answers; each gets its share of the time that is left."""
    attempt = _attempt()
    attempt.phase = "name look-up"
    addresses = _lookups.addresses(host, port, attempt.left())
    attempt.phase = "connect"
    failure: OSError = OSError("the name has no address")
    for index, (family, kind, protocol, _, address) in enumerate(addresses):
        try:
            connection = socket.socket(family, kind, protocol)
        except OSError as error:  # a family that this machine does not have
            failure = error.with_traceback(None)
            continue
        try:
            for option in options or ():
                connection.setsockopt(*option)
            connection.settimeout(attempt.left() / (len(addresses) - index))
            connection.connect(address)
            connection.settimeout(attempt.left())
        except OSError as error:
            # Its traceback would hold this frame and its callers, and so keep the pool from being closed.
            failure = error.with_traceback(None)
            connection.close()
            continue
        attempt.watch(connection.fileno())
        return connection
    raise failure


class _Response(HTTPResponse):
    """Passes over interim responses (RFC 9110 section 15.2): http.client does so for 100 alone.

    Else the final one would be read as the reply to the next request on this connection: another's token.
    """

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            status: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]  # typeshed leaves it out
            if not 100 <= status[1] <= 199 or status[1] == HTTPStatus.SWITCHING_PROTOCOLS:  # noqa: PLR2004
                return status
            parse_headers(self.fp)


class _Reporting:
    """What both kinds of connection add: they report the phase, and put their sockets under the alarm."""

    _answered = False

    def _new_conn(self) -> socket.socket:
        this = cast("HTTPConnection", self)
        # urllib3 opens the object of a kept connection again: what it was is over.
        self._answered = False
        connection = _connect(this._dns_host, this.port or 0, this.socket_options)  # noqa: SLF001 - the name to be looked up
        _attempt().phase = "TLS" if isinstance(self, HTTPSConnection) else "send"
        return connection

    def request(self, *args: Any, **kwargs: Any) -> None:
        attempt = _attempt()
        current = cast("HTTPConnection", self).sock
        attempt.may_be_stale = self._answered and current is not None
        if current is not None:
            attempt.watch(current.fileno())
            attempt.phase = "send"
        super().request(*args, **kwargs)  # type: ignore[misc]

    def getresponse(self) -> Any:
        attempt = _attempt()
        attempt.phase = "wait"
        try:
            response = super().getresponse()  # type: ignore[misc]
        except HTTPException as error:
            # All others are about bytes of an answer.
            attempt.may_be_stale &= isinstance(error, RemoteDisconnected)
            raise
        if attempt.expired:
            # What the alarm cut off looks as if the headers ended there.
            response.close()
            raise TimeoutError
        attempt.may_be_stale = False
        self._answered = True
        return response


class _HTTPConnection(_Reporting, HTTPConnection):
    response_class = _Response


class _HTTPSConnection(_Reporting, HTTPSConnection):
    response_class = _Response

    def request(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().request(*args, **kwargs)
        except OSError:
            # In TLS 1.3 a server that does not take the certificate says so, and is gone, before the request is there.
            if self.sock is not None:
                with suppress(ConnectionError, TimeoutError, ssl.SSLEOFError):
                    self.sock.recv(1)
            raise

    def _tunnel(self) -> None:
        attempt = _attempt()
        # A proxy that is silent waits for the provider, most likely.
        attempt.phase = "connect"
        super()._tunnel()
        if attempt.expired:  # as in getresponse
            raise TimeoutError
        attempt.phase = "TLS"


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class _Adapter(HTTPAdapter):
    """requests' adapter over our connections and our trust."""

    def __init__(
        self, provider: Provider, context: ssl.SSLContext | None, proxy_context: ssl.SSLContext | None
    ) -> None:
        self._context = context
        self._proxy_context = proxy_context
        # Two hosts at most: the token endpoint's and that of its metadata.
        super().__init__(pool_connections=2, pool_maxsize=provider.max_concurrency)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self._use_our_connections(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        if self._proxy_context is not None:
            # For the connection to an https proxy itself, to which no certificate is shown.
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
        """Nothing: the original adds the certificates of certifi to whatever the context trusts."""

    @staticmethod
    def _use_our_connections(manager: Any) -> None:
        manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}


# -- what went wrong -----------------------------------------------------------------------------------


def _explain(error: BaseException, attempt: _Attempt, provider: Provider, url: str) -> NoReply:
    """A failure in words that hold no URL, header or body; the exceptions' own texts do."""
    host = urlsplit(provider.proxy or url).hostname
    who = f"{'the proxy ' if provider.proxy else ''}{host}"
    if attempt.expired or time.monotonic() >= attempt.deadline:
        return NoReply(attempt.phase, f"{who}: not done within {provider.timeout:g} s (in the {attempt.phase})")
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = cause.verify_message or "certificate refused"
            return NoReply("TLS", f"{who}: TLS certificate refused: {why}", _tls_hint(why, provider))
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            why = (cause.reason or "failed").replace("_", " ").lower()
            # OpenSSL 3.0 says the first, later ones the second.
            plain = "wrong version" in why or "record layer" in why
            hint = "does this port speak TLS at all?" if plain else _ALERT_HINTS.get(why)
            return NoReply("TLS", f"{who}: TLS: {why}", hint)
        if isinstance(cause, socket.gaierror):
            return NoReply("name look-up", f"{who}: the name was not found: {cause.strerror}")
    tunnels = (re.search(r"Tunnel connection failed: ([0-9]{3})", str(cause)) for cause in causes)
    refused = next(filter(None, tunnels), None) if provider.proxy else None
    if refused is not None:
        wants = (
            "it wants to be logged in to, which is not supported"
            if refused[1] == "407"
            else "ask who runs it to allow it"
        )
        return NoReply("connect", f"{who} refuses to connect to the provider: HTTP {refused[1]}", wants)
    if any(isinstance(cause, BadStatusLine) and not isinstance(cause, RemoteDisconnected) for cause in causes):
        hint = "does this port want TLS? Then write https://" if urlsplit(url).scheme == "http" else None
        return NoReply(attempt.phase, f"{who}: the answer is not HTTP (in the {attempt.phase})", hint)
    for cause in causes:
        if isinstance(cause, OSError) and cause.strerror:
            return NoReply(attempt.phase, f"{who}: {cause.strerror.lower()} (in the {attempt.phase})")
    return NoReply(attempt.phase, f"{who}: the connection broke off (in the {attempt.phase})")


# How a provider says in TLS what it thinks of the client's certificate.
_ALERT_HINTS: Final = {
    "tlsv13 alert certificate required": "it wants a client certificate: is auth tls_client_auth this client's way?",
    "sslv3 alert handshake failure": "they agree on nothing, or it wants a client certificate (auth tls_client_auth)",
    "tlsv1 alert unknown ca": "it does not know the authority of the client certificate",
    "sslv3 alert bad certificate": "it does not take the client certificate",
    "sslv3 alert certificate expired": "the client certificate has expired",
}


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and all that it was made of, the innermost first."""
    seen: list[BaseException] = []
    stack: list[Any] = [error]
    while stack:
        current = stack.pop()
        if not isinstance(current, BaseException) or any(current is known for known in seen):
            continue
        seen.append(current)
        stack += [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]
    return reversed(seen)


def _tls_hint(why: str, provider: Provider) -> str | None:
    if "local issuer" in why or "self-signed" in why or "self signed" in why:
        if provider.ca_file:
            return f"it was not issued by what ca_file {provider.ca_file} holds"
        return "for a private authority set ca_file; for a public one install the system's ca-certificates"
    if "expired" in why or "not yet valid" in why:
        return "compare this machine's clock, else tell the provider"
    return None
