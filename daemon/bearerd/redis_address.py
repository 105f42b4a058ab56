"""The URL of a Redis or Valkey server, or of the sentinels that know it. Pure.

Used by the config, which must refuse a URL that contains a password, and by the client of the server. No error contains
any part of a URL, because a mistyped one may have a password anywhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final
from urllib.parse import unquote

SCHEMES: Final = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
# The default ports of Redis and Valkey, and of their sentinels.
_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
_LAST_PORT: Final = 65535
# Hosts. A set of sentinels has three or five.
_MOST_HOSTS: Final = 16
_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252})))(?::([0-9]{1,5}))?")
_DATABASE: Final = re.compile(r"[0-9]{1,4}")
# Bytes of a socket's path, without the NUL that ends it (unix(7)).
_LONGEST_SOCKET: Final = 107
# The names that Redis Sentinel accepts for a service.
_SERVICE: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_FORMS: Final = {
    "redis": "redis://HOST:6379/0",
    "rediss": "rediss://HOST:6379/0",
    "unix": "unix:///run/redis/redis.sock",
    "redis+sentinel": "redis+sentinel://HOST:26379,HOST:26379/SERVICE/0",
    "rediss+sentinel": "rediss+sentinel://HOST:26379,HOST:26379/SERVICE/0",
}


class BadAddressError(ValueError):
    """Not the URL of a server. The text continues `expected …`, and contains nothing of the URL."""


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed URL."""

    scheme: str
    """One of SCHEMES."""
    hosts: tuple[tuple[str, int], ...] = ()
    """Host and port of the server, or of each sentinel; none for a Unix socket."""
    socket: str = ""
    """The path of a Unix socket."""
    service: str = ""
    """The name under which sentinels know the server."""
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def tls(self) -> bool:
        """Whether connections use TLS."""
        return self.scheme.startswith("rediss")

    @property
    def sentinel(self) -> bool:
        """Whether the hosts are sentinels."""
        return self.scheme.endswith("+sentinel")

    @property
    def local(self) -> bool:
        """Whether no connection leaves this machine, as far as the hosts tell."""
        return all(host == "localhost" or _is_loopback(host) for host, _ in self.hosts)

    @property
    def name(self) -> str:
        """The URL without user and password, with its defaults filled in."""
        if self.scheme == "unix":
            return f"unix://{self.socket}" + (f"?db={self.database}" if self.database else "")
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return "/".join([f"{self.scheme}://{hosts}", *([self.service] if self.service else []), str(self.database)])


def parse(url: str) -> Address:
    """The address that a URL names; raises BadAddressError."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES:
        *others, last = (f"{each}://" for each in SCHEMES)
        raise BadAddressError(f"a URL that begins with {', '.join(others)} or {last}")
    if re.search(r"[<>{}$]", rest):
        raise BadAddressError("a URL in which each placeholder (<…>, {…} or $NAME) has been replaced by its value")
    if re.search(r"[^\x21-\x7e]", rest):
        raise BadAddressError("a URL of printable ASCII characters without spaces; encode others as %XX")
    if re.search(r"%(?![0-9A-Fa-f]{2})", rest):
        raise BadAddressError("a URL in which % is followed by two hexadecimal digits; % itself is %25")
    try:
        unquote(rest, errors="strict")
    except UnicodeDecodeError:
        raise BadAddressError("a URL whose encoded characters are UTF-8, such as %C3%A9 for é") from None
    # A password may contain any character but those that end the authority (RFC 3986 section 3.2), encoded.
    authority, path = _split(rest)
    if "@" in path and scheme != "unix":
        raise BadAddressError("a URL in which the characters /, ? and # of a password are %2F, %3F and %23")
    login, at, authority = authority.rpartition("@")
    username, password = _login(login) if at else (None, None)
    if scheme == "unix":
        socket, database = _socket(authority, path)
        return Address(scheme, socket=socket, database=database, username=username, password=password)
    sentinel = scheme.endswith("+sentinel")
    service, database = _path(path, scheme, sentinel=sentinel)
    hosts = tuple(_host(each, scheme, _SENTINEL_PORT if sentinel else _PORT) for each in authority.split(","))
    if len(hosts) > (_MOST_HOSTS if sentinel else 1):
        most = f"at most {_MOST_HOSTS} sentinels" if sentinel else "one host; several are for redis+sentinel://"
        raise BadAddressError(most)
    return Address(scheme, hosts=hosts, service=service, database=database, username=username, password=password)


def _split(rest: str) -> tuple[str, str]:
    end = re.search(r"[/?#]", rest)
    return (rest[: end.start()], rest[end.start() :]) if end else (rest, "")


def _login(text: str) -> tuple[str | None, str | None]:
    """User and password, decoded. `redis://:password@host` has no user."""
    username, colon, password = text.partition(":")
    return unquote(username) or None, unquote(password) if colon else None


def _socket(authority: str, path: str) -> tuple[str, int]:
    path, _, query = path.partition("?")
    database = re.fullmatch(r"db=([0-9]{1,4})", query)
    if authority or len(path) < 2 or "#" in path or (query and database is None):  # noqa: PLR2004 - `/` is no socket
        raise BadAddressError(f"{_FORMS['unix']}, perhaps with ?db=1")
    socket = unquote(path)
    if not socket.isprintable():
        raise BadAddressError("a socket's path without control characters")
    if len(socket.encode()) > _LONGEST_SOCKET:
        raise BadAddressError(f"a socket's path of at most {_LONGEST_SOCKET} bytes, the limit of Linux")
    return socket, int(database[1]) if database else 0


def _path(path: str, scheme: str, *, sentinel: bool) -> tuple[str, int]:
    """The service and the number of the database."""
    if "?" in path or "#" in path:
        raise BadAddressError(f"a URL without ?… and #…, such as {_FORMS[scheme]}")
    service, database = "", path.removeprefix("/")
    if sentinel:
        service, _, database = database.partition("/")
        if _SERVICE.fullmatch(service) is None:
            raise BadAddressError(f"the name of the service after the sentinels, such as {_FORMS[scheme]}")
    if database and _DATABASE.fullmatch(database) is None:
        raise BadAddressError(f"a URL that ends with the number of a database, such as {_FORMS[scheme]}")
    return service, int(database or "0")


def _host(text: str, scheme: str, default: int) -> tuple[str, int]:
    match = _HOST.fullmatch(text)
    port = int(match[3] or default) if match else 0
    if match is None or not 0 < port <= _LAST_PORT or (match[1] and not _is_ip_address(match[1])):
        raise BadAddressError(f"a URL with a host, and perhaps a port, such as {_FORMS[scheme]}")
    return match[1] or match[2], port


def _is_ip_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return _is_ip_address(host) and ip_address(host).is_loopback
