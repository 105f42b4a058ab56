"""The token request: form and headers, with the client authenticated (RFC 6749 sections 2.3.1 and 4.4.2). Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, quote_plus, urlencode

from bearerd import __version__
from bearerd.model import BasicEncoding, Target


@dataclass(frozen=True, slots=True)
class Credentials:
    """A client id and its secret, as read for one grant."""

    client_id: str
    client_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Request:
    """A POST that is ready to be sent. Header and body hold the secret: neither is ever shown."""

    url: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)


def compose(target: Target, credentials: Credentials) -> Request:
    """The client-credentials request of a target."""
    form = [("grant_type", "client_credentials")]
    if target.scope:
        form.append(("scope", target.scope))
    form.extend(target.parameters)
    headers = {
        "Accept": "application/json",
        # A compressed reply could be a thousand times its size.
        "Accept-Encoding": "identity",
        "Content-Type": "application/x-www-form-urlencoded",
        "User-Agent": f"bearerd/{__version__}",
    }
    if target.client.auth == "client_secret_basic":
        headers["Authorization"] = basic(credentials, target.client.basic_encoding)
    else:
        form.append(("client_id", credentials.client_id))
        form.append(("client_secret", credentials.client_secret))
    return Request(target.client.provider.token_url, headers, urlencode(form).encode("ascii"))


def basic(credentials: Credentials, encoding: BasicEncoding) -> str:
    """The Authorization header of HTTP Basic.

    RFC 6749 has id and secret form-encoded first; half of the providers do not decode. `compatible`
    encodes only what breaks one half or the other: `%`, `+`, the space, control and non-ASCII
    characters, and the id's `:`. Decoders restore these, the others still take `/ = ! $ @ # ~` as sent.
    """
    name = _ENCODERS[encoding](credentials.client_id)
    if encoding == "compatible":
        name = name.replace(":", "%3A")
    pair = f"{name}:{_ENCODERS[encoding](credentials.client_secret)}"
    return "Basic " + base64.b64encode(pair.encode()).decode("ascii")


def depends_on_encoding(client_secret: str) -> bool:
    """Whether the ways of encoding Basic differ, for this secret, in what providers make of them."""
    return re.search(r"[%+ ]", client_secret) is not None


def _compatible(text: str) -> str:
    return re.sub(r"[%+ \x00-\x1f\x7f]|[^\x00-\x7f]+", lambda match: quote(match[0], safe=""), text)


_ENCODERS: Final[dict[BasicEncoding, Callable[[str], str]]] = {
    "compatible": _compatible,
    "rfc6749": lambda text: quote_plus(text, safe=""),
    "raw": lambda text: text,
}
