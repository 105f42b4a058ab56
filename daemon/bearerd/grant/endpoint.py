"""Sends requests to a provider, each within one deadline; returns the reply, or the reason why there is none."""

from __future__ import annotations

import threading
import time
from hashlib import sha256
from typing import Final
from urllib.parse import urlsplit

from bearerd.grant.connecting import address_failed
from bearerd.grant.deadline import ALARM, Attempt
from bearerd.grant.explain import causes_of, explain
from bearerd.grant.outcome import NoReply
from bearerd.grant.proxy import proxy_of
from bearerd.grant.reply import Reply
from bearerd.grant.request import Request
from bearerd.grant.socks import prove
from bearerd.grant.tls import SetUpError, own_context, set_up_fault, shared_context, signature
from bearerd.grant.transport import Transport
from bearerd.model import Provider

__all__ = ["Endpoint", "NoReply", "set_up_fault"]

# Seconds. A burst is over by then, and most servers close idle connections after a minute.
IDLE_CLOSE: Final = 30.0


class Endpoint:
    """Sends requests to one provider, from any number of threads at once.

    A client with a certificate has a separate endpoint, because its connections cannot be shared.
    """

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._lock = threading.Lock()
        self._transport: Transport | None = None
        self._made_of: object = None
        self._last_used = 0.0
        self._prompt = False

    def send(self, request: Request) -> Reply | NoReply:
        """Send one request within the provider's timeout. Never raises, and follows no redirect."""
        attempt = Attempt(self._provider.timeout)
        attempt.proxy = proxy_of(self._provider, request.access.proxy_password)
        attempt.prompt = self._prompt
        try:
            ALARM.set(attempt)
        except RuntimeError as error:
            return NoReply("set-up", str(error))
        with attempt.current():
            try:
                reply = self._send(request, attempt)
                if isinstance(reply, NoReply) and attempt.may_be_stale and not attempt.expired:
                    # The connection was kept from an earlier request, and closed before the first byte of a reply: the
                    # provider has not seen this request. It is sent again over a new connection.
                    attempt.phase = "connect"
                    self.close()
                    reply = self._send(request, attempt)
            finally:
                attempt.end()
                self._prompt = attempt.prompt
        if isinstance(reply, NoReply) or reply.status >= 500:  # noqa: PLR2004
            # An address may accept connections and never answer.
            for host, address in attempt.connected.items():
                address_failed(host, address)
        return reply

    def close_idle(self) -> None:
        """Close connections that a burst left open."""
        if self._transport is not None and time.monotonic() - self._last_used > IDLE_CLOSE:
            self.close()

    def close(self) -> None:
        """Close idle connections; those in use end with their request."""
        with self._lock:
            transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def _send(self, request: Request, attempt: Attempt) -> Reply | NoReply:
        try:
            if attempt.proxy is not None and attempt.proxy.is_socks and (fault := prove(attempt.proxy)):
                raise SetUpError(fault)  # noqa: TRY301 - one place makes the NoReply
            transport = self._current_transport(request)
        except SetUpError as error:
            return NoReply("set-up", str(error))
        self._last_used = time.monotonic()
        try:
            reply = transport.exchange(request)
        except Exception as error:  # noqa: BLE001 - every failure becomes a NoReply
            explained = explain(error, attempt, self._provider, request.url)
            for cause in causes_of(error):
                # Tracebacks refer to frames that hold the request and its secret, and these refer back: an idle process
                # would keep them, and the pool, until the next garbage collection.
                cause.__traceback__ = None
            return explained
        if attempt.expired:
            return explain(TimeoutError(), attempt, self._provider, request.url)
        return reply

    def _current_transport(self, request: Request) -> Transport:
        """The transport, replaced if `ca_file`, the certificate or its key has changed; raises SetUpError."""
        ca_file = self._provider.ca_file
        secure = urlsplit(request.url).scheme == "https" or self._provider.proxy is not None
        with self._lock:
            trust = signature(ca_file)
            # A digest, so that the key is not kept.
            access = request.access
            identity = sha256(f"{access.certificate}\0{access.private_key}".encode()).digest()
            made_of = (secure, trust, identity)
            if self._transport is None or made_of != self._made_of:
                shared = shared_context(ca_file, trust) if secure else None
                own = shared
                if secure and access.certificate:
                    own = own_context(ca_file, access.certificate, access.private_key, access.named)
                self._transport, self._made_of = Transport(self._provider, own, shared), made_of
            return self._transport
