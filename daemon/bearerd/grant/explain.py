"""Describes why a request failed, without any URL, header or body, which the exceptions' own texts contain."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Iterator
from http.client import BadStatusLine, HTTPException, RemoteDisconnected
from typing import Any, Final
from urllib.parse import urlsplit

from bearerd.grant.deadline import Attempt
from bearerd.grant.heads import OutOfBoundsError
from bearerd.grant.outcome import NoReply, Phase
from bearerd.grant.proxy import login_hint
from bearerd.grant.socks import SocksError
from bearerd.model import Provider


def explain(error: BaseException, attempt: Attempt, provider: Provider, url: str) -> NoReply:
    """The reason, and what to do about it if that is known."""
    host = urlsplit(provider.proxy or url).hostname
    who = f"{'the proxy ' if provider.proxy else ''}{host}"
    causes = list(causes_of(error))
    beyond = next((what for cause in causes if (what := _beyond_bounds(cause))), None)
    if beyond is not None:
        # A proxy's answer to CONNECT is not the provider's.
        phase: Phase = "connect" if attempt.phase == "connect" else "reply"
        return NoReply(phase, f"{who}: the reply has {beyond}", _BEYOND_HINT if phase == "reply" else None)
    if attempt.expired or time.monotonic() >= attempt.deadline:
        return NoReply(attempt.phase, f"{who}: not done within {provider.timeout:g} s ({_DURING[attempt.phase]})")
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = cause.verify_message or "certificate refused"
            return NoReply("TLS", f"{who}: TLS certificate refused: {why}", _tls_hint(why, provider))
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            why = (cause.reason or "failed").replace("_", " ").lower()
            # OpenSSL 3.0 says the first, later ones the second.
            plain = "wrong version" in why or "record layer" in why
            hint = "check that this port speaks TLS" if plain else _ALERT_HINTS.get(why)
            return NoReply("TLS", f"{who}: TLS: {why}", hint)
        if isinstance(cause, socket.gaierror):
            return NoReply("name look-up", f"{who}: the name was not found: {cause.strerror}")
    if provider.proxy and (refusal := _refusal_of_proxy(causes, who, provider)):
        return refusal
    if any(isinstance(cause, BadStatusLine) and not isinstance(cause, RemoteDisconnected) for cause in causes):
        hint = "if this port speaks TLS, write https://" if urlsplit(url).scheme == "http" else None
        return NoReply(attempt.phase, f"{who}: the reply is not HTTP ({_DURING[attempt.phase]})", hint)
    for cause in causes:
        if isinstance(cause, OSError) and cause.strerror:
            return NoReply(attempt.phase, f"{who}: {cause.strerror.lower()} ({_DURING[attempt.phase]})")
    return NoReply(attempt.phase, f"{who}: the connection was closed ({_DURING[attempt.phase]})")


def _refusal_of_proxy(causes: list[BaseException], who: str, provider: Provider) -> NoReply | None:
    """The proxy's answer, if it did not connect to the provider."""
    for cause in causes:
        if isinstance(cause, SocksError):
            return NoReply("connect", f"{who} {cause}", login_hint(provider) if cause.about_login else None)
        if tunnel := re.search(r"Tunnel connection failed: ([0-9]{3})", str(cause)):
            # tinyproxy says 401 to a wrong password.
            hint = login_hint(provider) if tunnel[1] in {"401", "407"} else "ask its operator to allow it"
            return NoReply("connect", f"{who} refuses to connect to the provider: HTTP {tunnel[1]}", hint)
    return None


# The phase in which a request ended, for log lines.
_DURING: Final[dict[Phase, str]] = {
    "name look-up": "during name lookup",
    "connect": "while connecting",
    "TLS": "during the TLS handshake",
    "send": "while sending",
    "wait": "while waiting for the reply",
    "read": "while reading the reply",
}
_BEYOND_HINT: Final = "not the reply of a token endpoint; compare the URL with the provider's"


def _beyond_bounds(error: BaseException) -> str | None:
    if isinstance(error, OutOfBoundsError):
        return str(error)
    # http.client bounds the lines of one head.
    many = re.fullmatch(r"got more than ([0-9]+) headers", str(error)) if isinstance(error, HTTPException) else None
    return f"more than {many[1]} headers" if many else None


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """An exception and all of its causes, the innermost first."""
    seen: list[BaseException] = []
    stack: list[Any] = [error]
    while stack:
        current = stack.pop()
        if not isinstance(current, BaseException) or any(current is known for known in seen):
            continue
        seen.append(current)
        stack += [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]
    return reversed(seen)


# TLS alerts of a provider about the client's certificate.
_ALERT_HINTS: Final = {
    "tlsv13 alert certificate required": "it requires a client certificate: set tls_certificate and tls_private_key",
    "sslv3 alert handshake failure": "no common TLS version or cipher, or it requires a client certificate",
    "tlsv1 alert unknown ca": "it does not trust the authority of the client certificate",
    "sslv3 alert bad certificate": "it does not accept the client certificate",
    "sslv3 alert certificate expired": "the client certificate has expired",
}


def _tls_hint(why: str, provider: Provider) -> str | None:
    if "local issuer" in why or "self-signed" in why or "self signed" in why:
        if provider.ca_file:
            return f"no authority in ca_file {provider.ca_file} issued it"
        return "for a private authority set ca_file; for a public one install the system's ca-certificates"
    if "expired" in why or "not yet valid" in why:
        return "check this machine's clock; if it is right, inform the provider"
    return None
