"""Where a Redis server is: the URL of a share, parsed and checked. Pure.

    redis://[user[:password]@]host[:6379][/database]
    rediss://…                                             with TLS
    unix:///path[?db=database]
    redis+sentinel://host[:26379][,host…]/service[/database]
    rediss+sentinel://…                                    with TLS to the sentinels and to the server

The first three are those of redis-py and redis-cli. No standard exists for sentinels; most
libraries use this form.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Final
from urllib.parse import quote, unquote

from bearerd.terms import Redis

SCHEMES: Final = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
SERVER_PORT: Final = 6379
SENTINEL_PORT: Final = 26379
MOST_SENTINELS: Final = 16
"""Fleets run three or five."""
_MOST_CHARACTERS: Final = 4096
_MOST_DATABASE: Final = 9999
"""Redis has 16 by default."""
_MOST_SOCKET_PATH: Final = 107
"""Bytes, the limit of the kernel (unix(7))."""
_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_.])?")
_SERVICE: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
"""The names that sentinels accept."""


class AddressError(ValueError):
    """The URL cannot be used. The text says why and what to write. It contains nothing of the URL."""


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed URL."""

    hosts: tuple[tuple[str, int], ...] = ()
    """The server, or the sentinels, with ports. None for a Unix socket."""
    path: str = ""
    """Of a Unix socket."""
    service: str = ""
    """The name under which the sentinels know the server."""
    database: int = 0
    tls: bool = False
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The URL in full without user and password, for status and log."""
        if self.path:
            return f"unix://{quote(self.path)}" + (f"?db={self.database}" if self.database else "")
        hosts = ",".join(host_and_port(host, port) for host, port in self.hosts)
        scheme = ("rediss" if self.tls else "redis") + ("+sentinel" if self.service else "")
        return f"{scheme}://{hosts}/" + (f"{self.service}/" if self.service else "") + str(self.database)


def parse(url: str) -> Address:
    """The parts of a URL; raises AddressError."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in SCHEMES:
        raise AddressError(f"must begin with {', '.join(f'{known}://' for known in SCHEMES[:-1])} or {SCHEMES[-1]}://")
    if len(url) > _MOST_CHARACTERS:
        raise AddressError(f"longer than {_MOST_CHARACTERS} characters")
    if not url.isprintable() or " " in url:
        raise AddressError("contains a blank or a control character; remove it, or write it as %XX")
    scheme = scheme.lower()
    end = next((at for at, character in enumerate(rest) if character in "/?#"), len(rest))
    authority, tail = rest[:end], rest[end:]
    if "@" in tail and "@" not in authority:
        raise AddressError("has an @ after a /, ? or #; write these characters of a user or password as %2F, %3F, %23")
    login, _, place = authority.rpartition("@")
    user, _, password = login.partition(":")
    path, query_separator, query = tail.partition("?")
    if "#" in tail or (query_separator and scheme != "unix"):
        raise AddressError("has something after ? or #, which is not supported; use the keys of share.redis instead")
    return (
        _of_socket(place, path, query, user, password)
        if scheme == "unix"
        else Address(
            hosts=_hosts(place, sentinels=scheme.endswith("sentinel")),
            service=_service(path) if scheme.endswith("sentinel") else "",
            database=_database(path.removeprefix("/").partition("/")[2] if scheme.endswith("sentinel") else path[1:]),
            tls=scheme.startswith("rediss"),
            username=unquote(user) or None,
            password=unquote(password) or None,
        )
    )


def name_of(redis: Redis) -> str:
    """How a share is named in status and log: its address without user and password, or where its URL is read.

    Raises AddressError.
    """
    return parse(redis.url).name if isinstance(redis.url, str) else str(redis.url)


def host_and_port(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _of_socket(place: str, path: str, query: str, user: str, password: str) -> Address:
    path = unquote(path)
    if place or not path.startswith("/") or path == "/":
        raise AddressError("needs an absolute path after unix://, as in unix:///run/redis/redis.sock")
    if len(path.encode(errors="surrogateescape")) > _MOST_SOCKET_PATH or "\0" in path:
        raise AddressError(f"the path of a Unix socket has at most {_MOST_SOCKET_PATH} bytes")
    key, _, database = query.partition("=")
    if query and key != "db":
        raise AddressError("has something after ? that is not supported; only ?db=NUMBER is")
    if query and not database:
        raise AddressError("has no number after ?db=")
    return Address(
        path=path,
        database=_database(database),
        username=unquote(user) or None,
        password=unquote(password) or None,
    )


def _hosts(place: str, *, sentinels: bool) -> tuple[tuple[str, int], ...]:
    parts = place.split(",")
    if len(parts) > 1 and not sentinels:
        raise AddressError("has several hosts, which only redis+sentinel:// and rediss+sentinel:// allow")
    if len(parts) > MOST_SENTINELS:
        raise AddressError(f"has more than {MOST_SENTINELS} sentinels")
    return tuple(_host(part, SENTINEL_PORT if sentinels else SERVER_PORT) for part in parts)


def _host(part: str, default: int) -> tuple[str, int]:
    if part.startswith("["):
        host, bracket, port = part[1:].partition("]")
        try:
            IPv6Address(host)
        except ValueError:
            raise AddressError("the address in brackets is not an IPv6 address") from None
        if not bracket or (port and not port.startswith(":")):
            raise AddressError("has no ] before the port")
    else:
        if part.count(":") > 1:
            raise AddressError("an IPv6 address needs brackets, as in redis://[::1]:6379")
        host, separator, port = part.partition(":")
        port = separator + port
        if not host:
            raise AddressError("has no host")
        if not host.isascii():
            raise AddressError("the host has characters that are not ASCII; write an international name as xn--…")
        if not _HOST.fullmatch(host):
            raise AddressError("the host is neither a name nor an address")
    if port == ":":
        raise AddressError("has no port after the colon")
    return host.lower(), _port(port[1:]) if port else default


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 2**16:
        raise AddressError("the port is not a number from 1 to 65535; write : / ? # @ in a user or password as %XX")
    return int(text)


def _service(path: str) -> str:
    service = path.removeprefix("/").partition("/")[0]
    if not _SERVICE.fullmatch(service):
        raise AddressError("needs the name under which the sentinels know the server, as in redis+sentinel://s1/main")
    return service


def _database(text: str) -> int:
    text = text.removesuffix("/")
    if text and (not re.fullmatch(r"[0-9]{1,4}", text) or int(text) > _MOST_DATABASE):
        raise AddressError(f"the database at the end is not a number from 0 to {_MOST_DATABASE}")
    return int(text or 0)
