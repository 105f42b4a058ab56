"""A token's bytes in each format. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from bearerd.model import Format, Output, Target, Token
from bearerd.timeformat import rfc3339


def render(target: Target, token: Token, output: Output) -> bytes:
    """What stands in an output while this token is the target's; templates are for template.py."""
    return _FORMATS[output.format](target, token, output).encode()


def _raw(_target: Target, token: Token, output: Output) -> str:
    # Six kinds of readers break on a newline, none needs one.
    return token.access_token + ("\n" if output.newline else "")


def fields(target: Target, token: Token) -> dict[str, Any]:
    """All that is known of a token, by its names in `json` and in templates."""
    document = token.extra_fields() | {
        "access_token": token.access_token,
        "token_type": token.token_type,
        "expires_in": int(token.lifetime),
        "expires_at": rfc3339(token.expires.wall),
        "obtained_at": rfc3339(token.obtained.wall),
        "client": target.client.name,
        "token": target.name,
    }
    if token.scope is not None:
        document["scope"] = token.scope
    return document


def _json(target: Target, token: Token, _output: Output) -> str:
    return json.dumps(fields(target, token)) + "\n"


def _header(_target: Target, token: Token, _output: Output) -> str:
    # Whatever token_type says: eBay's "Application Access Token" is sent as Bearer too (RFC 6750).
    return f"Authorization: Bearer {token.access_token}\n"


def _env(_target: Target, token: Token, output: Output) -> str:
    # Inside single quotes nothing is special to a shell or to systemd but the quote itself.
    quoted = token.access_token.replace("'", "'\\''")
    return f"{output.variable}='{quoted}'\n"


_FORMATS: Final[Mapping[Format, Callable[[Target, Token, Output], str]]] = {
    "raw": _raw,
    "json": _json,
    "header": _header,
    "env": _env,
}
