"""A token's bytes in each format. Pure."""

from __future__ import annotations

import json
from typing import Any, assert_never

from bearerd.model import Output, Target
from bearerd.terms import Token
from bearerd.timeformat import rfc3339


def render(target: Target, token: Token, output: Output) -> bytes:
    """The content of an output in any format but `template`, which template.py renders."""
    match output.format:
        case "raw":
            text = _raw(token, output)
        case "json":
            text = json.dumps(fields(target, token)) + "\n"
        case "header":
            # Always Bearer: eBay's token_type is "Application Access Token", and its API expects Bearer (RFC 6750).
            text = f"Authorization: Bearer {token.access_token}\n"
        case "env":
            text = _env(token, output)
        case "template":
            raise ValueError(f"{output.path} is made from a template")
        case _:
            assert_never(output.format)
    return text.encode()


def _raw(token: Token, output: Output) -> str:
    # Six kinds of readers break on a newline, and none needs one.
    return token.access_token + ("\n" if output.newline else "")


def fields(target: Target, token: Token) -> dict[str, Any]:
    """Everything that is known about a token, under its names in `json` and in templates."""
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


def _env(token: Token, output: Output) -> str:
    # Within single quotes only the quote itself is special, for a shell and for systemd.
    quoted = token.access_token.replace("'", "'\\''")
    return f"{output.variable}='{quoted}'\n"
