"""How long a new token lives, from its reply. Pure. Every format here is in use at some provider.

`expires_in` should be seconds (RFC 6749 section 5.1). It comes as a number or a string (PayPal, Entra
v1), as 0 (Mailchimp), null or missing (Salesforce), in milliseconds (Postman), as the Unix time of
the expiry (Deliverect), and as an ISO 8601 date, or in another field (D&B Direct+). Caches and gateways
repeat it later, so a token that is a JWT never lives longer than its own `exp`.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from bearerd import boundedjson
from bearerd.grant.outcome import Named
from bearerd.terms import LifetimeUnit

# Larger numbers are probably not seconds. Few providers issue client-credentials tokens for longer than 30 days; 10^9
# is a moment in 2001, and 10^12 the same in milliseconds.
_MOST_SECONDS: Final = 30 * 86400.0
_UNIX_SECONDS: Final = 1e9
# Five minutes in milliseconds are 3.5 days in seconds. Shorter lifetimes are rare, and smaller numbers usually seconds.
_FEW_MINUTES: Final = 300_000
_UNIX_MILLISECONDS: Final = 1e12
# Seconds. No known provider issues tokens for less, and a daemon that renews each second would flood one.
_SHORT: Final = 60.0
# Seconds. A longer lifetime was not understood: default_lifetime is safe.
_ABSURD: Final = 366 * 86400.0
# Larger numbers are not shown: a float does not hold all of their digits.
_EXACT: Final = 1e15
# A reading agrees with the JWT's own expiry if it is this close: clocks differ by a minute, and some providers round
# or subtract a margin.
_AGREES_SECONDS: Final = 60.0
_AGREES_SHARE: Final = 0.05
# Seconds. Clocks and rounding explain smaller differences between two statements about one expiry.
_DIFFERS: Final = 30.0

_IN: Final = ("expires_in", "expiresIn", "expires")
EXP: Final = "exp of the JWT"
"""The source of a lifetime that no field of the reply names."""
_AT: Final = ("expires_at", "expiresAt", "expires_on", "expirationDateTime")


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Seconds from the request; 0 or less if the token arrived expired."""

    seconds: float
    note: str | None = None
    named: Named = "named"
    source: str = field(kw_only=True)
    """The field that names it, `exp of the JWT`, or `default_lifetime` if none can be used; empty if none is there."""


def read_lifetime(
    fields: Mapping[str, Any],
    access_token: str,
    now: float,
    default: float,
    age: float = 0.0,
    unit: LifetimeUnit = "auto",
) -> Lifetime:
    """The lifetime of a token.

    `now` is the Unix time just before the request by the provider's clock, `default` applies if no lifetime is named,
    and `age` is how many seconds a cache kept the reply (RFC 9111 section 5.1). `unit` is that of a bare number.
    """
    issued, expires = _jwt_times(access_token)
    # An `exp` before 2001 is a number of seconds, as some providers write it.
    left = expires - now if expires is not None and _UNIX_SECONDS < expires <= now + _ABSURD else None
    by_jwt = None if expires is None else expires - (issued if issued is not None else now)
    named = _named(fields, now, by_jwt, age, unit)
    if named is None:
        if left is not None:
            return Lifetime(left, "the reply names no lifetime: the exp of the JWT is used", source=EXP)
        said = [fields.get(name) for name in _IN if fields.get(name) not in (None, "")]
        zero = any(_number(value) == 0 for value in said)
        why, advice = _implausible(fields, unit) if said and not zero else ("the reply names no lifetime", "")
        taken = f"{why}: default_lifetime ({_seconds(default)}) is used{advice}"
        return Lifetime(default, taken, "zero" if zero else "unnamed", source="default_lifetime" if said else "")
    if left is None:
        return named
    note = named.note
    if abs(named.seconds - left) > _DIFFERS and (left < named.seconds or note is None):
        note = f"the reply says {_seconds(named.seconds)}, the exp of the JWT {_seconds(left)}: the shorter one is used"
    return Lifetime(min(left, named.seconds), note, source=EXP if left < named.seconds else named.source)


def _named(
    fields: Mapping[str, Any], now: float, by_jwt: float | None, age: float, configured: LifetimeUnit
) -> Lifetime | None:
    """The lifetime in the fields of a reply; None without a plausible one."""
    for name in _IN:
        number = _number(fields.get(name))
        if number is None:
            moment = _moment(fields.get(name))
            if moment is not None and moment - now <= _ABSURD:
                return Lifetime(moment - now, f"{name} was read as a date: {_seconds(moment - now)}", source=name)
            continue
        if number == 0:
            continue
        if number < 0:
            return Lifetime(number, source=name)
        if configured == "auto":
            seconds, read_as = _reading(number, now, by_jwt)
            note = _note(name, number, seconds, read_as, sure=by_jwt is not None)
        else:
            seconds, read_as = number / (1000 if configured == "milliseconds" else 1), None
            note = _doubt(name, number, seconds) if configured == "milliseconds" else None
        if seconds <= _ABSURD:
            return Lifetime(seconds - age if read_as in {None, "milliseconds"} else seconds, note, source=name)
    for name in _AT:
        moment = _moment(fields.get(name))
        if moment is not None and moment - now <= _ABSURD:
            return Lifetime(moment - now, source=name)
    return None


def _reading(number: float, now: float, by_jwt: float | None) -> tuple[float, str | None]:
    """The lifetime that `expires_in` means, and its unit unless that is seconds."""
    readings = {
        None: number,
        "milliseconds": number / 1000,
        "a Unix time": number - now,
        "a Unix time in milliseconds": number / 1000 - now,
    }
    if by_jwt is not None:
        within = max(_AGREES_SECONDS, _AGREES_SHARE * abs(by_jwt))
        agreeing = {unit: value for unit, value in readings.items() if abs(value - by_jwt) <= within}
        if agreeing.get("milliseconds", _SHORT) < _SHORT:  # it agrees because both are short
            del agreeing["milliseconds"]
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


def _note(name: str, number: float, seconds: float, read_as: str | None, *, sure: bool) -> str | None:
    """What is unusual about a reading; `sure`: a JWT confirms or bounds it."""
    if read_as == "milliseconds":
        said = f"{name} {number:.0f} was read as milliseconds: {_seconds(seconds)}, not {_seconds(number)}"
        return f"{said}; if that is wrong, set lifetime_unit: seconds"
    if read_as is not None:
        return f"{name} was read as {read_as}: {_seconds(seconds)}"
    if not sure and _like_milliseconds(number):
        said = f"{name} {number:.0f} was read as seconds"
        return f"{said}; if it is milliseconds ({_seconds(number / 1000)}), set lifetime_unit: milliseconds"
    return None


def _implausible(fields: Mapping[str, Any], configured: LifetimeUnit) -> tuple[str, str]:
    """What is not plausible, and what to do if the unit was misread."""
    for name in _IN:
        number = _number(fields.get(name))
        if number is None or number > _EXACT:
            continue
        seconds = number / 1000
        meant = configured == "auto" and seconds <= _ABSURD
        advice = f"; if it is milliseconds ({_seconds(seconds)}), set lifetime_unit: milliseconds" if meant else ""
        return f"{name} {number:.0f} is not plausible", advice
    return "the lifetime in the reply is not plausible", ""


def _doubt(name: str, number: float, seconds: float) -> str | None:
    """What is doubtful about a number that was read as milliseconds, as configured."""
    if seconds >= _SHORT:
        return None
    said = f"{name} {number:.0f} was read as milliseconds, as lifetime_unit says: {seconds:.1f} s"
    return f"{said}; if it is seconds, remove lifetime_unit"


def _like_milliseconds(number: float) -> bool:
    """Whether a number that may be seconds is whole minutes in milliseconds, and not whole days in seconds."""
    return number >= _FEW_MINUTES and number % 60_000 == 0 and number % 86_400 != 0


def _number(value: Any) -> float | None:
    """A finite number, or one in a string; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _moment(value: Any) -> float | None:
    """The Unix time in a number of seconds or milliseconds, or in an ISO 8601 date."""
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
    """The claims of a token that is a JWT, else none. They are not verified, and used as hints only."""
    parts = access_token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - header.claims.signature (RFC 7519)
        return {}
    try:
        # A JWT has no padding. Two signs are enough for any length, and those that are not needed are ignored.
        claims = boundedjson.loads(base64.urlsafe_b64decode(f"{parts[1]}==").decode())
    except ValueError:
        return {}
    return claims if isinstance(claims, dict) else {}


def valid_after(access_token: str, now: float) -> float:
    """Seconds from `now`, by the provider's clock, until a JWT is valid (`nbf`); 0 if it is, or for another token."""
    moment = jwt_claims(access_token).get("nbf")
    starts = _claimed(moment)
    # As for `exp`: a smaller number is no Unix time, and a later one no plausible moment.
    return starts - now if starts is not None and max(now, _UNIX_SECONDS) < starts <= now + _ABSURD else 0.0


def _jwt_times(access_token: str) -> tuple[float | None, float | None]:
    """`iat` and `exp` of a token that is a JWT."""
    claims = jwt_claims(access_token)
    issued, expires = claims.get("iat"), claims.get("exp")
    return _claimed(issued), _claimed(expires)


def _claimed(claim: Any) -> float | None:
    """The Unix time in a claim; some write milliseconds."""
    number = None if isinstance(claim, str) else _number(claim)
    return number / 1000 if number is not None and number > _UNIX_MILLISECONDS else number


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s"
