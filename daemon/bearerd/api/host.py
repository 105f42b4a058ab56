"""The check of `Host` for requests over TCP. Pure.

With DNS rebinding, a web page resolves its own name to any address, makes the browser send requests there, and reads
the replies. Such a request has the page's name in `Host`, which a page cannot change. So only addresses, `localhost`
and configured names are answered.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from http import HTTPStatus
from ipaddress import ip_address
from typing import Final

from bearerd.api.message import HOST, BadRequest, Request

_VALUE: Final = re.compile(HOST)
_MISDIRECTED: Final = (
    "Host is neither an IP address nor localhost nor a configured name; "
    "add the name to hosts in the config: listen: {hosts: [NAME]}"
)


def canonical(name: str) -> str:
    """A host name for comparison: in lower case, without a final dot."""
    return name.lower().removesuffix(".")


def check(request: Request, names: Collection[str]) -> None:
    """Raise BadRequest unless the request is for an IP address, `localhost` or one of these canonical names."""
    if len(request.hosts) > 1 or (not request.hosts and request.version >= (1, 1)):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "expected one Host header")
    # The host of a target in absolute form replaces that of the header (RFC 9112, section 3.2.2).
    value = request.authority if request.authority is not None else next(iter(request.hosts), None)
    if value is not None and not _allowed(value, names):
        raise BadRequest(HTTPStatus.MISDIRECTED_REQUEST, _MISDIRECTED)


def _allowed(value: str, names: Collection[str]) -> bool:
    match = _VALUE.fullmatch(value)
    if match is None:
        return False
    host = match["host"]
    if canonical(host) == "localhost" or canonical(host) in names:
        return True
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return (address.version == 6) == host.startswith("[")  # noqa: PLR2004 - the version's name
