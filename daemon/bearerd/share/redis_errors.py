"""Says why a Redis server could not be used, and what to do.

Of what the server sent, only the code of its error is shown. No text contains a URL, a password or a key.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from dataclasses import dataclass
from typing import Final, Literal

from bearerd.errors import lack
from bearerd.reason import reason_of
from bearerd.share.types import ShareUnavailable

Phase = Literal["name look-up", "connect", "TLS", "login", "command"]
"""What a connection was doing."""

_NO_CLUSTERS: Final = "clusters are not supported; use a server without cluster mode, or sentinels"
_ADVICE: Final = {
    "NOAUTH": "the server requires a password; set share.redis.password, and username if it has users",
    "WRONGPASS": "the server refuses the user or the password; check share.redis.username, password and its ACL",
    "NOPERM": "the user may not do this at the server; give it the ACL in docs/fleet.md, with this prefix",
    "OOM": "the memory of the server is full; raise its maxmemory, or remove the data of other programs",
    "READONLY": "the server is a replica; point share.redis.url at the primary, or at the sentinels",
    "MASTERDOWN": "the server is a replica that lost its primary; point share.redis.url at the primary",
    "LOADING": "the server is still loading its data; it is tried again until it is done",
    "BUSY": "a script of another program blocks the server; SCRIPT KILL ends it",
    "MISCONF": "the server cannot save to its disk and so refuses writes; free its disk, or turn persistence off",
    "NOREPLICAS": "the server has fewer replicas than its min-replicas-to-write; start them, or lower it",
    "DENIED": "the server accepts only connections of its own machine; give it a password (protected-mode)",
    "WRONGTYPE": "another program uses keys with this prefix; set another share.redis.prefix",
    "CLUSTERDOWN": _NO_CLUSTERS,
    "MOVED": _NO_CLUSTERS,
    "ASK": _NO_CLUSTERS,
    "CROSSSLOT": _NO_CLUSTERS,
    "TRYAGAIN": _NO_CLUSTERS,
    "MAXCLIENTS": "the server has as many clients as its maxclients allows; raise it, or look for too many clients",
    "NOPASSWORD": "the server has no password for this user; remove share.redis.password, or set one at the server",
    "DATABASE": "the server does not have this database; write another number at the end of share.redis.url",
    "UNKNOWN": "the server does not know a command; it must be Redis 6.2 or Valkey 7.2 or newer, and no sentinel",
}
"""By code of the server's error. Our own codes are for errors with the code ERR."""
_OUR_OWN: Final = frozenset({"MAXCLIENTS", "NOPASSWORD", "DATABASE", "UNKNOWN"})
_OTHER: Final = "the server refuses a command; it must be Redis 6.2 or Valkey 7.2 or newer, and allow Lua scripts"
_BY_TEXT: Final = {
    "unknown command": "UNKNOWN",
    "executing the script can't": "NOPERM",
    "ACL failure": "NOPERM",
    "max number of clients": "MAXCLIENTS",
    "without any password": "NOPASSWORD",
    "no password is set": "NOPASSWORD",
    "DB index": "DATABASE",
    "protected mode": "DENIED",
    "invalid password": "WRONGPASS",
}
# In a script, older servers put the code into a text: `ERR Error running script (…): @user_script:3: -OOM command …`.
_WITHIN: Final = re.compile(r"-?\b([A-Z]{3,20})\b")


class RefusedError(ShareUnavailable):
    """The server answered with an error."""

    def __init__(self, code: str, text: str) -> None:
        self.code = code
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class Where:
    """A server, and the words for its errors."""

    name: str
    """Its address, or where its URL is read if that is a secret."""
    tls: bool
    ca_file: str | None
    timeout: float
    """Seconds for a connection, and for each command."""

    def refusal(self, code: str | None, text: str) -> RefusedError:
        """The server answered with an error. Its text only helps to find the code, and is never shown."""
        code = _code_of(code, text)
        what, advice = _ADVICE.get(code, _OTHER).split("; ", 1)
        shown = "" if code in _OUR_OWN else f" ({code})"
        return RefusedError(code, f"{self.name}: {what}{shown}; {advice}")

    def failure(self, error: BaseException, phase: Phase) -> ShareUnavailable:
        """No answer: an OSError, the end of the connection, or no memory for it."""
        what, advice = _failure(error, phase, self)
        return ShareUnavailable(f"{self.name}: {what}; {advice}")

    def garbage(self) -> ShareUnavailable:
        """An answer that cannot be right."""
        advice = "check host and port" if self.tls else "check host and port; if it speaks TLS, write rediss://"
        return ShareUnavailable(f"{self.name}: the answer is not that of a Redis server; {advice}")


def _code_of(code: str | None, text: str) -> str:
    if code in _ADVICE or code == "NOSCRIPT":
        return str(code)
    known = next((meant for part, meant in _BY_TEXT.items() if part in text), None)
    return known or next((found for found in _WITHIN.findall(text) if found in _ADVICE), "ERR")


def _failure(error: BaseException, phase: Phase, where: Where) -> tuple[str, str]:
    reach = "check that the server runs, and that no firewall is in between"
    if isinstance(error, TimeoutError) and error.errno is None:
        advice = "check that this port speaks TLS, else write redis:// for rediss://" if phase == "TLS" else reach
        return f"timed out after {where.timeout:g} s ({_DURING[phase]})", advice
    if isinstance(error, ssl.SSLCertVerificationError):
        why = (error.verify_message or "certificate refused").rstrip(".")
        return f"TLS certificate refused: {why.lower()}", _certificate_advice(why.lower(), where.ca_file)
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        why = (error.reason or "failed").replace("_", " ").lower()
        plain = "wrong version" in why or "record layer" in why
        return f"TLS: {why}", (
            "check that this port speaks TLS, else write redis:// for rediss://" if plain
            else "check the TLS settings of the server; it needs TLS 1.2 or newer"
        )  # fmt: skip
    if isinstance(error, MemoryError):
        what, _, advice = lack(error).partition("; ")
        return what, advice
    if isinstance(error, socket.gaierror):
        return "the name was not found", "check the host in share.redis.url, and this machine's DNS"
    if isinstance(error, UnicodeError):
        return "the name cannot be looked up", "check the host in share.redis.url"
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ssl.SSLError):
        if error.errno in _ADVICE_BY_NUMBER:
            return reason_of(error), _ADVICE_BY_NUMBER[error.errno]
        if error.errno not in {errno.ECONNRESET, errno.EPIPE}:
            return f"{reason_of(error)} ({_DURING[phase]})", reach
    # The end of a connection, whatever the exception: of ssl, of redis-py, or a reset.
    advice = reach
    if phase == "TLS":
        advice = "check that this port speaks TLS, else write redis:// for rediss://"
    elif not where.tls and phase == "login":
        advice = "check host and port; if it speaks TLS, write rediss://"
    return f"the server closed the connection ({_DURING[phase]})", advice


def _certificate_advice(why: str, ca_file: str | None) -> str:
    if "hostname mismatch" in why or "ip address mismatch" in why:
        return "use the name in the server's certificate as host, or give it a certificate for this one"
    if "issuer" in why or "self-signed" in why or "self signed" in why:
        if ca_file is not None:
            return f"put the authority that issued it into ca_file {ca_file}"
        return "for a private authority set share.redis.ca_file"
    if "expired" in why or "not yet valid" in why:
        return "check this machine's clock; if it is right, renew the server's certificate"
    return "check the server's certificate"


_DURING: Final[dict[Phase, str]] = {
    "name look-up": "during name lookup",
    "connect": "while connecting",
    "TLS": "during the TLS handshake",
    "login": "before its first answer",
    "command": "while waiting for an answer",
}
_LISTENS: Final = "check that the server runs there, host and port, and that no firewall refuses"
_ADVICE_BY_NUMBER: Final = {
    errno.ECONNREFUSED: _LISTENS,
    errno.ENOENT: "check that the server runs, and the path of its socket (unixsocket in its config)",
    errno.EACCES: "let this user write to the server's socket (unixsocketperm and its directory)",
    errno.EMFILE: "raise LimitNOFILE",
    errno.EADDRNOTAVAIL: "check the host in share.redis.url",
}
