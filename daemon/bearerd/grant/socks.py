"""Connects through a SOCKS5 proxy (RFC 1928, 1929) within an attempt's deadline.

PySocks speaks to the proxy over a connection that `connecting` has made, since its own would block beyond the deadline.
It is the `socks` extra, and is imported when the first connection needs it.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from bearerd.errors import ExtraMissing
from bearerd.grant.addresses import HostPort
from bearerd.grant.connecting import addresses_of, connect
from bearerd.grant.deadline import current_attempt
from bearerd.grant.proxy import Proxy

# Bytes. RFC 1929 allows 255, but PySocks writes a wrong length byte from 128 on.
_LONGEST: Final = 127


class SocksError(OSError):
    """The proxy did not connect. The text continues `the proxy HOST …`, and holds nothing that was received."""

    def __init__(self, text: str, *, about_login: bool = False) -> None:
        self.about_login = about_login
        super().__init__(text)


def prove(proxy: Proxy) -> str | None:
    """Why a SOCKS proxy cannot be used on this machine or with this login, or None."""
    try:
        _connected_type()
    except ImportError:
        return str(ExtraMissing("a SOCKS proxy", "socks"))
    if max(len(proxy.username.encode()), len(proxy.password.encode())) > _LONGEST:
        return f"the username or password for the proxy is longer than {_LONGEST} bytes, which SOCKS5 cannot carry"
    return None


def connect_through(proxy: Proxy, host: HostPort, options: Sequence[tuple[Any, ...]]) -> socket.socket:
    """A connection to the host through the proxy; raises OSError, of which SocksError is the proxy's answer."""
    import socks  # noqa: PLC0415 - few need it

    attempt = current_attempt()
    name, port = host
    if not proxy.resolves:
        name = _usual(addresses_of(host, attempt))
    connection = connect((proxy.host, proxy.port or 0), options)
    kind, protocol = connection.type, connection.proto
    through = _connected_type()(connection.family, kind, protocol, fileno=connection.detach())
    try:
        through.set_proxy(socks.SOCKS5, proxy.host, proxy.port, True, proxy.username or None, proxy.password or None)
        through.settimeout(attempt.left())
        through.connect((name, port))
        seconds = attempt.left()
        connected = socket.socket(fileno=through.detach())
        connected.settimeout(seconds)
    except socks.ProxyError as error:
        # PySocks wraps the proxy's answer in a second error, as if it were the socket's.
        answer = error.socket_err if isinstance(error.socket_err, OSError) else error
        if isinstance(answer, socks.SOCKS5AuthError):
            raise SocksError("refused the connection", about_login=True) from None
        if isinstance(answer, socks.SOCKS5Error):
            # "0x05: Connection refused"; both parts are from a table of PySocks.
            raise SocksError(f"cannot connect to the provider: {str(answer).partition(': ')[2].lower()}") from None
        if isinstance(answer, socks.ProxyError):
            raise SocksError("did not answer as a SOCKS5 proxy") from None
        raise answer from None
    else:
        return connected
    finally:
        through.close()


def _usual(addresses: Sequence[Any]) -> str:
    """The address that the proxy connects to: the first of IPv4, which more proxies have, else the first."""
    if not addresses:
        raise OSError("the name has no address")
    return str(min(addresses, key=lambda address: address[0] != socket.AF_INET)[4][0])


@cache
def _connected_type() -> Any:
    """PySocks' socket, over a connection that exists already; raises ImportError without the extra."""
    import socks  # noqa: PLC0415 - as above

    class Connected(socket.socket):
        def connect(self, _address: Any) -> None:
            """Do nothing: PySocks calls this to connect to the proxy."""

    class Through(socks.socksocket, Connected):  # type: ignore[misc]  # it publishes no types
        """The order of these two puts `Connected.connect` after that of PySocks."""

    return Through
