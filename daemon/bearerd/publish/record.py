"""bearerd's own copy of a token, from which the files are made. Pure."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Final

from bearerd import boundedjson
from bearerd.terms import Instant, Token, Unsure

SCHEMA: Final = 1
"""The format version. A record with another one is kept aside (publish/version)."""
# Unix time. Python cannot format later dates.
_YEAR_10000: Final = 253_402_300_800.0
# Seconds, two hundred years: the longest lifetime, and the greatest time of a boot clock. Longer ones, of a damaged
# record, would move the other times beyond these years when the clocks are compared.
_LONGEST: Final = 200 * 366 * 86400.0
# The year 2112 in microseconds, as in share/types.
_GREATEST_FENCE: Final = 2**52


@dataclass(frozen=True, slots=True)
class Record:
    """A token, and the `Target.identity` that it was issued for."""

    token: Token
    identity: str
    client_id: str
    named: bool = True
    """Whether its provider named a lifetime for it."""
    sliding: bool = False
    """Whether its provider prolongs it for as long as it is used."""
    unsure: Unsure = ""
    """Why its lifetime still has to be confirmed by another reply."""
    present: Token | None = None
    """The token in the files, while the new one waits for its publication."""
    not_before: float = 0.0
    """Seconds after the new token was requested from which it is valid; 0 if it is not waiting for that."""
    publish_after: float = 0.0
    """Seconds after the new token was requested at which it is published, if it is valid; 0 without a delay."""
    fence: int = 0
    """The fencing number of the new token in its fleet; 0 if it was obtained without one."""

    @property
    def waits(self) -> bool:
        """Whether the new token was waiting when the record was written."""
        return self.present is not None or self.not_before > 0

    @property
    def published(self) -> Token:
        """The token for the files."""
        return self.present or self.token


def dump(record: Record) -> bytes:
    """A record as JSON.

    The token in the files is at the top level, and a new one that waits is in `next`. A version of bearerd that does
    not know `next` uses the token in the files, and so does this version if a record has no `next`.
    """
    fields: dict[str, Any] = {
        "schema": SCHEMA,
        "identity": record.identity,
        "client_id": record.client_id,
        "named": record.named,
        "sliding": record.sliding,
        **_fields(record.published),
    }
    if record.waits:
        fields |= {"not_before": record.not_before, "publish_after": record.publish_after}
    if record.present is not None:
        fields["next"] = _fields(record.token)
    if record.unsure:
        fields["unsure"] = record.unsure
    if record.fence:
        fields["fence"] = record.fence
    return json.dumps(fields).encode()


def _fields(token: Token) -> dict[str, Any]:
    return {
        "access_token": token.access_token,
        "token_type": token.token_type,
        "scope": token.scope,
        "lifetime": token.lifetime,
        "obtained_wall": token.obtained.wall,
        "obtained_boot": token.obtained.boot,
        "extra": token.extra_fields(),
    }


def load(content: bytes) -> Record | None:
    """The record in a file; None unless this version wrote it in full."""
    try:
        # The fields of the reply are up to two levels deeper here than in the reply.
        fields = boundedjson.loads(content.decode(), boundedjson.DEEPEST + 2)
        if not isinstance(fields, dict) or fields.get("schema") != SCHEMA:
            return None
        following = fields.get("next")
        return Record(
            _token(fields if following is None else following),
            _text(fields["identity"]),
            _text(fields["client_id"], may_be_empty=True),
            # The first version with a package wrote neither.
            named=_flag(fields.get("named", True)),
            sliding=_flag(fields.get("sliding", False)),
            unsure=_unsure(fields.get("unsure", "")),
            present=None if following is None else _token(fields),
            not_before=_number(fields.get("not_before", 0.0)),
            publish_after=_number(fields.get("publish_after", 0.0)),
            fence=_count(fields.get("fence", 0)),
        )
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def _token(fields: dict[str, Any]) -> Token:
    scope = fields["scope"]
    extra = fields["extra"]
    if not isinstance(extra, dict):
        raise TypeError
    lifetime, boot = (_number(fields[name], _LONGEST) for name in ("lifetime", "obtained_boot"))
    obtained = _number(fields["obtained_wall"])
    if not 0 <= obtained + lifetime < _YEAR_10000:
        raise ValueError
    return Token(
        access_token=_one_word(_text(fields["access_token"])),
        token_type=_text(fields["token_type"]),
        # Some providers return an empty scope.
        scope=None if scope is None else _text(scope, may_be_empty=True),
        lifetime=lifetime,
        obtained=Instant(obtained, boot),
        extra=json.dumps(extra),
    )


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _unsure(value: Any) -> Unsure:
    if value in {"", "zero", "renewed"}:
        unsure: Unsure = value
        return unsure
    raise TypeError


def _number(value: Any, most: float = math.inf) -> float:
    number = float(value)
    if not math.isfinite(number) or abs(number) > most:
        raise ValueError
    return number


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _GREATEST_FENCE:
        raise TypeError
    return value


def _one_word(text: str) -> str:
    """A text that is safe in a header (RFC 6749 A.12): another program may have written the record."""
    if re.fullmatch(r"[\x21-\x7e]+", text) is None:
        raise ValueError
    return text


def _text(value: Any, *, may_be_empty: bool = False) -> str:
    if not isinstance(value, str) or not (value or may_be_empty):
        raise TypeError
    return value
