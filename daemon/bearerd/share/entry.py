"""The content of entries: a token with its times, or a failure. Pure.

A token's time is that of the server, the one clock that the whole fleet sees, and that of the daemon that obtained it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Any, Final, get_args

from bearerd import boundedjson
from bearerd.grant.outcome import KINDS, Failure, Malformed, Phase, RateLimited, Refused, Transient, Unsent
from bearerd.publish.record import Record, dump, load
from bearerd.share.types import GREATEST_FENCE
from bearerd.terms import Instant

# Characters of a message. The longest of bearerd's own, with an error code and a host name, has 400.
_LONGEST_TEXT: Final = 1000
# Unix time: the greatest fence, in seconds. By the age of an earlier or later token, its times could not be shown.
_LATEST: Final = GREATEST_FENCE / 1e6
MOST_REFUSED: Final = 8
"""Different credentials that a fleet tries one after the other without a wait: more than a rollout has."""
_BY_NAME: Final = {name: kind for kind, name in KINDS.items() if name != "issued"}
_PHASES: Final = frozenset(get_args(Phase))


@dataclass(frozen=True, slots=True)
class TokenEntry:
    """A token of the fleet."""

    record: Record
    """Its boot clock is that of no machine."""
    clock: float
    """The server's time at which it was requested, or a little earlier."""
    next_due: float
    """Seconds after that at which its provider is asked about it next; 0 if it is simply refreshed when due."""

    def at(self, clock: float, boot: float) -> Record:
        """The record with the times of this machine, given the server's time and a boot time that is not later."""
        age = max(0.0, clock - self.clock)
        token = self.record.token
        return replace(self.record, token=replace(token, obtained=Instant(token.obtained.wall, boot - age)))


def dump_token(entry: TokenEntry) -> bytes:
    """A token as JSON: a record of the newest token alone, without the boot clock."""
    record = entry.record
    token = replace(record.token, obtained=Instant(record.token.obtained.wall, 0.0))
    alone = replace(record, token=token, present=None, publish_after=0.0, fence=0)
    return json.dumps({"clock": entry.clock, "next_due": entry.next_due, "record": dump(alone).decode()}).encode()


def load_token(content: bytes) -> TokenEntry | None:
    """The token in an opened entry; None unless this version wrote it."""
    try:
        fields = boundedjson.loads(content.decode())
        if not isinstance(fields, dict):
            return None
        record = load(str(fields["record"]).encode())
        clock, next_due = _finite(fields["clock"]), _finite(fields["next_due"])
        if not 0 <= clock <= _LATEST:
            return None
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
    return None if record is None else TokenEntry(record, clock, next_due)


def dump_failure(failure: Failure, ends: float, refused: tuple[str, ...] = ()) -> bytes:
    """A failure as JSON. `ends`: when the fleet asks again, by the server's clock.

    `refused`: fingerprints of the credentials that were refused, the last ones if many were.
    """
    fields: dict[str, Any] = {
        "refused": refused[-MOST_REFUSED:],
        "kind": KINDS[type(failure)],
        "message": failure.message[:_LONGEST_TEXT],
        "phase": failure.phase,
        "ends": ends,
        "hint": None if failure.hint is None else failure.hint[:_LONGEST_TEXT],
    }
    if isinstance(failure, Transient | RateLimited):
        fields["retry_after"] = failure.retry_after
    if isinstance(failure, Refused):
        fields |= {"whole_client": failure.whole_client, "another_secret": failure.another_secret}
    return json.dumps(fields).encode()


def load_failure(content: bytes) -> tuple[Failure, float] | None:
    """The failure in an opened entry, and when the fleet asks again; None unless this version wrote it."""
    try:
        fields = boundedjson.loads(content.decode())
        if not isinstance(fields, dict) or not isinstance(fields["refused"], list):
            return None
        return _failure(fields), _finite(fields["ends"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def load_refused(content: bytes) -> tuple[str, ...]:
    """The fingerprints of the credentials that were refused, in a failure that `load_failure` accepts."""
    return tuple(map(str, boundedjson.loads(content.decode())["refused"]))


def _failure(fields: dict[str, Any]) -> Failure:
    kind = _BY_NAME[fields["kind"]]
    message, hint, phase = _text(fields["message"]), fields["hint"], fields["phase"]
    hint = None if hint is None else _text(hint)
    if phase not in _PHASES:
        raise ValueError
    if kind is Transient or kind is RateLimited:
        retry_after = fields["retry_after"]
        return kind(message, phase, hint, None if retry_after is None else max(0.0, _finite(retry_after)))
    if kind is Refused:
        whole, another = fields["whole_client"] is True, fields["another_secret"] is True
        return Refused(message, phase, hint, whole_client=whole, another_secret=another)
    return Malformed(message, phase, hint) if kind is Malformed else Unsent(message, phase, hint)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable() or len(value) > _LONGEST_TEXT:
        raise TypeError
    return value


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number
