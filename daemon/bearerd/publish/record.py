"""bearerd's own copy of a token: the truth from which the files are made. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from bearerd.model import Instant, Token

SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class Record:
    """A token, and what it was issued for (Target.identity)."""

    token: Token
    identity: str


def dump(record: Record) -> bytes:
    """A record as it is kept."""
    token = record.token
    return json.dumps(
        {
            "schema": SCHEMA,
            "identity": record.identity,
            "access_token": token.access_token,
            "token_type": token.token_type,
            "scope": token.scope,
            "lifetime": token.lifetime,
            "obtained_wall": token.obtained.wall,
            "obtained_boot": token.obtained.boot,
            "extra": token.extra_fields(),
        }
    ).encode()


def load(content: bytes) -> Record | None:
    """What was kept; None for anything that this version did not write whole."""
    try:
        fields = json.loads(content)
        if not isinstance(fields, dict) or fields.get("schema") != SCHEMA:
            return None
        return Record(_token(fields), _text(fields["identity"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _token(fields: dict[str, Any]) -> Token:
    scope = fields["scope"]
    extra = fields["extra"]
    if not isinstance(extra, dict):
        raise TypeError
    return Token(
        access_token=_text(fields["access_token"]),
        token_type=_text(fields["token_type"]),
        scope=None if scope is None else _text(scope),
        lifetime=float(fields["lifetime"]),
        obtained=Instant(float(fields["obtained_wall"]), float(fields["obtained_boot"])),
        extra=json.dumps(extra) if extra else "{}",
    )


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError
    return value
