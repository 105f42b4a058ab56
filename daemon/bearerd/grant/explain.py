"""Describes why a request failed, without any URL, header or body, which the exceptions' own texts contain."""

from __future__ import annotations

import errno
import re
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from http.client import BadStatusLine, HTTPException, RemoteDisconnected, UnknownProtocol
from typing import Any, Final
from urllib.parse import urlsplit

from bearerd.errors import unexpected
from bearerd.grant.deadline import Attempt
from bearerd.grant.heads import OutOfBoundsError
from bearerd.grant.outcome import HTTP2_HINT, NoReply, Phase
from bearerd.grant.proxy import login_hint
from bearerd.grant.socks import SocksError
from bearerd.grant.transport import FAULTS
from bearerd.model import Provider


def explain(error: BaseException, attempt: Attempt, provider: Provider, url: str) -> NoReply:
    """The reason, and what to do about it if that is known."""
    late = attempt.expired or time.monotonic() >= attempt.deadline
    who = addressee(provider.proxy or url, port=attempt.phase != "name look-up")
    who = f"the proxy {who}" if provider.proxy else who
    causes = list(causes_of(error))
    beyond = next((what for cause in causes if (what := _beyond_bounds(cause))), None)
    if beyond is not None:
        # A proxy's answer to CONNECT is not the provider's.
        phase: Phase = "connect" if attempt.phase == "connect" else "reply"
        return NoReply(phase, f"{who}: the reply has {beyond}", _BEYOND_HINT if phase == "reply" else None)
    if late:
        return NoReply(attempt.phase, f"{who}: timed out after {provider.timeout:g} s ({_DURING[attempt.phase]})")
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = (cause.verify_message or "certificate refused").rstrip(".")  # as OpenSSL ends some
            return NoReply("TLS", f"{who}: TLS certificate refused: {why}", _tls_hint(why, provider))
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            # For alerts that are newer than Python's table, only the text of the exception has OpenSSL's reason.
            unnamed = re.search(r"\] ([a-z0-9 ]{1,80})", str(cause))
            why = (cause.reason or (unnamed[1].strip() if unnamed else "failed")).replace("_", " ").lower()
            # OpenSSL 3.0 says the first, later ones the second.
            plain = "wrong version" in why or "record layer" in why
            hint = "check that this port speaks TLS" if plain else _ALERT_HINTS.get(why)
            return NoReply("TLS", f"{who}: TLS: {why}", hint)
        if isinstance(cause, socket.gaierror):
            return NoReply("name look-up", f"{who}: the name was not found: {cause.strerror}")
        if isinstance(cause, UnicodeError) and attempt.phase == "connect":
            # A proxy is given the name as IDNA encodes it, which refuses an empty part, and one that is too long.
            return NoReply("connect", f"{who}: the provider's host is no name that can be looked up", "check the URL")
    if provider.proxy and (refusal := _refusal_of_proxy(causes, who, provider)):
        return refusal
    if not any(isinstance(cause, FAULTS) for cause in causes):
        # A lack of memory, or a bug: no fault of the addressee.
        what, _, advice = unexpected(error).partition("; ")
        return NoReply(attempt.phase, f"{what} ({_DURING[attempt.phase]})", advice)
    plain = urlsplit(url).scheme == "http" and attempt.phase in {"send", "wait"} and not provider.proxy
    # A connection that was not opened now has carried a reply in HTTP.
    hint = "if this port speaks TLS, write https://" if plain and attempt.connected else None
    what, hint = _broken(causes, hint)
    return NoReply(attempt.phase, f"{who}: {what} ({_DURING[attempt.phase]})", hint)


def _broken(causes: Sequence[BaseException], hint: str | None) -> tuple[str, str | None]:
    """Why there is no reply in HTTP, and what to do about it: the given hint in general."""
    for cause in causes:
        if isinstance(cause, UnknownProtocol) or (isinstance(cause, BadStatusLine) and _HTTP2.match(str(cause))):
            return "the reply is not HTTP/1.1", HTTP2_HINT
        if isinstance(cause, BadStatusLine) and not isinstance(cause, RemoteDisconnected):
            return "the reply is not HTTP", hint
    for cause in causes:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower(), _ERROR_HINTS.get(cause.errno or 0, hint)
    return "the connection was closed", hint


def addressee(url: str, *, port: bool = True) -> str:
    """The host of a URL, and its port."""
    parts = urlsplit(url)
    if not port:
        return parts.hostname or ""
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{parts.port or {'http': 80, 'https': 443}.get(parts.scheme, 1080)}"


def _refusal_of_proxy(causes: list[BaseException], who: str, provider: Provider) -> NoReply | None:
    """The proxy's answer, if it did not connect to the provider."""
    of_login: Phase = "proxy login" if provider.proxy_login else "connect"
    for cause in causes:
        if isinstance(cause, SocksError):
            return (
                NoReply(of_login, f"{who} {cause}", login_hint(provider))
                if cause.about_login
                else NoReply("connect", f"{who} {cause}")
            )
        if tunnel := re.search(r"Tunnel connection failed: ([0-9]{3})", str(cause)):
            # tinyproxy says 401 to a wrong password.
            said = f"{who} refuses to connect to the provider: HTTP {tunnel[1]}"
            if tunnel[1] in {"401", "407"}:
                return NoReply(of_login, said, login_hint(provider))
            if tunnel[1] == "429":
                said = f"{who} received too many requests: HTTP {tunnel[1]}"
                return NoReply("connect", said, "if it recurs, ask its operator what it allows")
            if tunnel[1] in {"502", "503", "504"}:
                said = f"{who} could not reach the provider: HTTP {tunnel[1]}"
                return NoReply("connect", said, "check the URL's host and port; if they are right, ask its operator")
            return NoReply("connect", said, "ask its operator to allow it")
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
# The first frame of an HTTP/2 connection: SETTINGS, or GOAWAY (RFC 9113 section 6).
_HTTP2: Final = re.compile(r"\0\0.[\4\7]", re.DOTALL)
_ERROR_HINTS: Final = {
    errno.ECONNREFUSED: "no server listens there, or a firewall refuses: check host and port",
    errno.EMFILE: "raise LimitNOFILE",
}
_BEYOND_HINT: Final = "not the reply of a token endpoint; check that the URL matches the provider's settings"


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


_VERSION_HINT: Final = (
    "the server speaks only versions before TLS 1.2, which are not safe: ask the provider for TLS 1.2"
)
# TLS alerts of a provider, and OpenSSL's own reasons.
_ALERT_HINTS: Final = {
    "tlsv1 alert protocol version": _VERSION_HINT,
    "unsupported protocol": _VERSION_HINT,
    "tlsv13 alert certificate required": (
        "the server requires a client certificate: set tls_certificate and tls_private_key"
    ),
    "sslv3 alert handshake failure": "no common TLS version or cipher, or the server requires a client certificate",
    "tlsv1 alert no application protocol": HTTP2_HINT,
    "tlsv1 alert unknown ca": "the server does not trust the authority of the client certificate",
    "sslv3 alert bad certificate": "the server does not accept the client certificate",
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
