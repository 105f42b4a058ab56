"""How long a new token lives, out of what providers say. Pure; every oddity here was seen at one.

`expires_in` should be seconds (RFC 6749 section 5.1). It comes as a number or a string (PayPal, Entra
v1), as 0 (Mailchimp), null or missing (Salesforce), in milliseconds (Postman), as the Unix time of
the expiry (Deliverect), and as an ISO 8601 date; or another field has it (D&B Direct+). Caches and gateways
repeat it after it was true, so a token that is a JWT is never given more than its own `exp`.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from bearerd import boundedjson
from bearerd.grant.outcome import Named

# From here up a number of seconds is more likely something else. Few providers issue client-credentials tokens
# for longer than 30 days; 10^9 is a moment in 2001, and 10^12 the same in ms.
_MOST_SECONDS: Final = 30 * 86400.0
_UNIX_SECONDS: Final = 1e9
_UNIX_MILLISECONDS: Final = 1e12
# A lifetime of over a year is a number that was not understood: asking each default_lifetime is safe.
_ABSURD: Final = 366 * 86400.0
# How near a reading must come to the JWT's own expiry: clocks differ by a minute, and some
# providers round or subtract a margin.
_AGREES_SECONDS: Final = 60.0
_AGREES_SHARE: Final = 0.05
# Two statements about one expiry that differ by more than clocks and rounding explain.
_DIFFERS: Final = 30.0

_IN: Final = ("expires_in", "expiresIn", "expires")
_AT: Final = ("expires_at", "expiresAt", "expires_on", "expirationDateTime")


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Seconds from the request on; not above 0 when the token had expired already."""

    seconds: float
    note: str | None = None
    named: Named = "named"


def read_lifetime(
    fields: Mapping[str, Any], access_token: str, now: float, default: float, age: float = 0.0
) -> Lifetime:
    """The lifetime of a token.

    `now` is the Unix time just before the request by the provider's clock, `default` applies when nothing is
    named, and `age` is for how many seconds a cache kept the reply (RFC 9111 section 5.1).
    """
    issued, expires = _jwt_times(access_token)
    # A moment before 2001 is no `exp`: some providers put a number of seconds there.
    left = expires - now if expires is not None and _UNIX_SECONDS < expires <= now + _ABSURD else None
    by_jwt = None if expires is None else expires - (issued if issued is not None else now)
    named = _named(fields, now, by_jwt, age)
    if named is None:
        if left is not None:
            return Lifetime(left, "the reply names no lifetime: the JWT's exp was taken")
        said = [fields.get(name) for name in _IN if fields.get(name) not in (None, "")]
        zero = any(_number(value) == 0 for value in said)
        why = "the reply's lifetime makes no sense" if said and not zero else "the reply names no lifetime"
        taken = f"{why}: default_lifetime, {_words(default)}, was taken"
        return Lifetime(default, taken, "zero" if zero else "unnamed")
    if left is not None and left < named.seconds:
        note = named.note
        if named.seconds - left > _DIFFERS:
            note = f"the reply names {_words(named.seconds)}, the JWT's own exp {_words(left)}: the shorter was taken"
        return Lifetime(left, note)
    return named


def _named(fields: Mapping[str, Any], now: float, by_jwt: float | None, age: float) -> Lifetime | None:
    """What the reply's fields name; None where they name nothing that makes sense."""
    for name in _IN:
        number = _number(fields.get(name))
        if number is None:
            moment = _moment(fields.get(name))
            if moment is not None and moment - now <= _ABSURD:
                return Lifetime(moment - now, f"{name} was read as a date: {_words(moment - now)}")
            continue
        if number == 0:
            continue
        if number < 0:
            return Lifetime(number)
        seconds, unit = _reading(number, now, by_jwt)
        if seconds > _ABSURD:
            continue
        note = None
        if unit is not None:
            note = f"{name} was read as {unit}: {_words(seconds)}"
        if unit == "milliseconds":
            note = f"{name} {number:.0f} was read as milliseconds: {_words(seconds)}, not {_words(number)}"
        return Lifetime(seconds - age if unit in {None, "milliseconds"} else seconds, note)
    for name in _AT:
        moment = _moment(fields.get(name))
        if moment is not None and moment - now <= _ABSURD:
            return Lifetime(moment - now)
    return None


def _reading(number: float, now: float, by_jwt: float | None) -> tuple[float, str | None]:
    """What `expires_in` means, and its unit where that is not seconds."""
    readings = {
        None: number,
        "milliseconds": number / 1000,
        "a Unix time": number - now,
        "a Unix time in milliseconds": number / 1000 - now,
    }
    if by_jwt is not None:
        within = max(_AGREES_SECONDS, _AGREES_SHARE * abs(by_jwt))
        agreeing = {unit: value for unit, value in readings.items() if abs(value - by_jwt) <= within}
        if len(agreeing) == 1:
            unit, value = agreeing.popitem()
            return value, unit
    unit = None
    if number > _UNIX_MILLISECONDS:
        unit = "a Unix time in milliseconds"
    elif number > _UNIX_SECONDS:
        unit = "a Unix time"
    elif number > _MOST_SECONDS:
        unit = "milliseconds"
    return readings[unit], unit


def _number(value: Any) -> float | None:
    """A finite number, also out of a string; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _moment(value: Any) -> float | None:
    """A Unix time, out of a number in seconds or milliseconds, or of an ISO 8601 date."""
    number = _number(value)
    if number is not None:
        if number > _UNIX_MILLISECONDS:
            return number / 1000
        return number if number > _UNIX_SECONDS else None
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (OverflowError, ValueError):
        return None


def jwt_claims(access_token: str) -> dict[str, Any]:
    """The claims of a token that happens to be a JWT, else nothing. Unverified: they are only ever a hint."""
    parts = access_token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - header.claims.signature (RFC 7519)
        return {}
    try:
        claims = boundedjson.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)).decode())
    except ValueError:
        return {}
    return claims if isinstance(claims, dict) else {}


def _jwt_times(access_token: str) -> tuple[float | None, float | None]:
    """`iat` and `exp` of a token that happens to be a JWT."""
    claims = jwt_claims(access_token)
    issued, expires = claims.get("iat"), claims.get("exp")
    return (
        _number(issued) if not isinstance(issued, str) else None,
        _number(expires) if not isinstance(expires, str) else None,
    )


def _words(seconds: float) -> str:
    return f"{seconds:.0f} s"
