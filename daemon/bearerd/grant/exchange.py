"""A token request and its reply in words, for `bearerd check --online`: names, and never a value. Pure.

Everything is read from the request as it is sent, so that everything that the config adds to it appears automatically.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from bearerd.grant.body import parse
from bearerd.grant.codes import code_of, is_secret
from bearerd.grant.outcome import NoReply
from bearerd.grant.reply import Reply
from bearerd.grant.request import Request

# Names in one line. A token reply has about ten.
_MOST_NAMES: Final = 24
# Letters. A shorter name is a part of many secrets by chance.
_TELLING: Final = 4


@dataclass(frozen=True, slots=True)
class Exchange:
    """What was sent, and what came back."""

    method: str
    url: str
    """Without its query."""
    parameters: tuple[str, ...]
    as_json: bool
    headers: tuple[str, ...]
    certificate: str = field(repr=False)
    """The client certificate of the connection, in PEM; empty without one."""
    status: int | None = None
    """None without a reply."""
    content_type: str = ""
    fields: str = ""
    """The names of the reply's fields, or why it has none."""
    code: str = ""
    """The code of a refusal."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Texts that the reply may quote, and that are never shown."""

    def quoted_in(self, text: str, token: str) -> bool:
        """Whether a text of the reply contains a secret of the request, or the token."""
        # Real tokens are longer. A letter would be part of any text.
        never_show = (*self.secrets, token if len(token) > _TELLING else "")
        return any(secret.casefold() in text.casefold() for secret in never_show if secret)


def described(request: Request, reply: Reply | NoReply) -> Exchange:
    """A request and its reply in words."""
    as_json = "json" in request.headers.get("Content-Type", "")
    sent = Exchange(
        method="GET" if request.body is None else "POST",
        url=without_query(request.url),
        parameters=_parameters(request.body or b"", as_json=as_json),
        as_json=as_json,
        headers=tuple(request.headers),
        certificate=request.access.certificate,
        secrets=request.secrets,
    )
    if isinstance(reply, NoReply):
        return sent
    fields, fault = parse(reply.body, reply.fault)
    return replace(
        sent,
        status=reply.status,
        content_type=_content_type(reply.headers.get("content-type", "")),
        fields=f"none ({fault})" if fields is None else _names(fields, request.secrets),
        code=code_of(fields, reply.headers, reply.status, request.secrets).text or "",
    )


def without_query(url: str) -> str:
    """A URL without its query and fragment, which may hold a key."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def _parameters(body: bytes, *, as_json: bool) -> tuple[str, ...]:
    if as_json:
        return tuple(json.loads(body))
    return tuple(dict.fromkeys(name for name, _ in parse_qsl(body.decode("ascii"), keep_blank_values=True)))


def _content_type(header: str) -> str:
    media_type = header.partition(";")[0].strip().lower()
    if not media_type:
        return "no Content-Type"
    return media_type if re.fullmatch(r"[a-z]{1,20}/[a-z.+-]{1,40}", media_type) else "another Content-Type"


def _names(fields: Iterable[str], never_show: tuple[str, ...]) -> str:
    """The names of fields. Those that do not look like names, or could be secret, are counted only."""
    names = list(fields)
    shown = [name for name in names if _is_name(name, never_show)][:_MOST_NAMES]
    more = len(names) - len(shown)
    return ", ".join(shown + ([f"{more} more"] if more else [])) or "none"


def _is_name(name: str, never_show: tuple[str, ...]) -> bool:
    if re.fullmatch(r"[A-Za-z_.][A-Za-z_.:-]{0,38}[0-9]?", name) is None:
        return False
    return len(name) < _TELLING or not is_secret(name, never_show)
