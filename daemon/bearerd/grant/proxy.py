"""The proxy in front of a provider, and the login to it. Pure."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from bearerd.model import Provider

# RFC 1928.
_SOCKS_PORT: Final = 1080


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy as one request uses it, with the password as it was read for this request."""

    scheme: str
    host: str
    port: int | None
    username: str = ""
    password: str = field(default="", repr=False)

    @property
    def is_socks(self) -> bool:
        """Whether it speaks SOCKS; all others speak HTTP."""
        return self.scheme in {"socks5", "socks5h"}

    @property
    def resolves(self) -> bool:
        """Whether it looks up the names of hosts: socks5h, as curl and requests call it."""
        return self.scheme == "socks5h"

    @property
    def authorization(self) -> str:
        """The value of Proxy-Authorization (RFC 7617), empty without a login."""
        if not self.username:
            return ""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode("ascii")


def proxy_of(provider: Provider, password: str = "") -> Proxy | None:
    """The provider's proxy, if it has one."""
    if provider.proxy is None:
        return None
    parts = urlsplit(provider.proxy)
    port = parts.port or (_SOCKS_PORT if parts.scheme.startswith("socks") else None)
    username = provider.proxy_login.username if provider.proxy_login else ""
    return Proxy(parts.scheme, parts.hostname or "", port, username, password)


def login_hint(provider: Provider) -> str:
    """What to do if the provider's proxy requires a login or refused it."""
    if provider.proxy_login is None:
        return "the proxy requires a login: set proxy: {url: …, username: …, password: {file: …}}"
    return f"the proxy refused the login: check username and password ({provider.proxy_login.password})"
