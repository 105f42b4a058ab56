"""The replies of the scripts, checked: a server may be broken, or lie. Pure.

Every reply is an array of texts: the server's time in microseconds, the kind, and what belongs to it.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal

from bearerd.share.types import GREATEST_FENCE, NEVER, Answer, Busy, Claim, Failing, Granted, Limited, Stored

MOST_SEALED: Final = 2**20
"""Bytes of a sealed token. A provider's reply has at most 64 KiB, which JSON may write with six times as many."""
SECOND: Final = 1_000_000
"""Scripts count in microseconds."""
_EARLIEST: Final = 1_600_000_000 * SECOND
"""September 2020. A server with an earlier clock would give fences that are too small."""
_LONGEST_WAIT: Final = 2 * 3650 * 86400 * SECOND
"""Twice the longest window of a rate limit."""
_MOST_FAILURES: Final = 1_000_000
"""In a row. At one a second, a client would have failed for eleven days."""
_MESSAGE: Final = re.compile(rb"([!-~]{1,128}) ([!-~]{1,128})")


class BadReplyError(Exception):
    """Not the reply of our script."""


def claimed(reply: Any, claim: Claim) -> Answer:
    """The answer to a claim; raises BadReplyError."""
    clock, kind, rest = _parts(reply)
    match kind, rest:
        case b"granted", [fence, failures, refusals, governed]:
            return Granted(
                _number(fence, claim.seen + 1, GREATEST_FENCE),
                clock,
                _number(failures, 0, _MOST_FAILURES),
                _number(refusals, 0, _MOST_FAILURES),
                _flag(governed),
            )
        case b"stored", [fence, sealed]:
            return Stored(_number(fence, claim.have + 1, GREATEST_FENCE), clock, _sealed(sealed))
        case b"busy", [wait]:
            return Busy(_wait(wait))
        case b"limited", [reason, wait]:
            return Limited(_reason(reason), _wait(wait))
        case b"failing", [sealed, wait, count, whole_client]:
            return Failing(_sealed(sealed), _wait(wait), _number(count, 1, _MOST_FAILURES), _flag(whole_client))
    raise BadReplyError


def stored(reply: Any) -> Stored:
    """The stored token, with the fence `NEVER` if there is none; raises BadReplyError."""
    return newer(reply, NEVER) or Stored(NEVER, _parts(reply)[0], b"")


def newer(reply: Any, than: int) -> Stored | None:
    """A stored token with a greater fence, if the reply has one; raises BadReplyError."""
    clock, kind, rest = _parts(reply)
    match kind, rest:
        case b"stored", [fence, sealed]:
            return Stored(_number(fence, than + 1, GREATEST_FENCE), clock, _sealed(sealed))
        case b"done", []:
            return None
    raise BadReplyError


def done(reply: Any) -> None:
    """The script did its work; raises BadReplyError."""
    _, kind, rest = _parts(reply)
    if kind != b"done" or rest:
        raise BadReplyError


def fences(reply: Any, count: int) -> tuple[int, ...]:
    """The fences of `count` tokens; raises BadReplyError."""
    _, kind, rest = _parts(reply)
    if kind != b"fences" or len(rest) != count:
        raise BadReplyError
    return tuple(_number(each, 0, GREATEST_FENCE) for each in rest)


def announced(message: bytes) -> tuple[str, ...]:
    """The names of a target and of its client; none if no daemon announces like that."""
    match = _MESSAGE.fullmatch(message)
    return () if match is None else (match[1].decode(), match[2].decode())


def _parts(reply: Any) -> tuple[float, bytes, list[bytes]]:
    """The server's time in seconds, the kind and the rest."""
    if not isinstance(reply, list) or len(reply) < 2 or not all(isinstance(part, bytes) for part in reply):  # noqa: PLR2004 - as above
        raise BadReplyError
    return _number(reply[0], _EARLIEST, GREATEST_FENCE) / SECOND, reply[1], reply[2:]


def _number(text: bytes, least: int, most: int) -> int:
    if not re.fullmatch(rb"[0-9]{1,16}", text) or not least <= int(text) <= most:
        raise BadReplyError
    return int(text)


def _wait(text: bytes) -> float:
    """Seconds."""
    return _number(text, 0, _LONGEST_WAIT) / SECOND


def _flag(text: bytes) -> bool:
    return _number(text, 0, 1) == 1


def _sealed(sealed: bytes) -> bytes:
    if not 0 < len(sealed) <= MOST_SEALED:
        raise BadReplyError
    return sealed


def _reason(text: bytes) -> Literal["rate_limit", "refused_limit"]:
    match text:
        case b"rate_limit":
            return "rate_limit"
        case b"refused_limit":
            return "refused_limit"
    raise BadReplyError
