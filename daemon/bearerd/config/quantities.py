"""How durations, rates and modes are written in the config. Pure.

Each parser raises pydantic's error with what it expected, as those in `values` do.
"""

from __future__ import annotations

import re
from math import inf
from typing import Any, Final

from pydantic_core import PydanticCustomError

from bearerd.config.values import expected, fault
from bearerd.model import RefreshBefore
from bearerd.terms import MOST_REFUSED, RateLimit
from bearerd.timeformat import DURATION, UNITS, seconds_of

# The lead is never more than half the lifetime.
_LARGEST_PERCENT: Final = 50
# Seconds. A request that takes longer than a day is a mistake in the config.
_LONGEST_TIMEOUT: Final = 86400.0
# Seconds. Ten years: more than any token's lifetime, and small enough for every calculation with times.
_LONGEST: Final = 3650 * 86400.0
# Seconds. A shorter one would only burden the provider: no token that lives longer is revoked that often.
_LEAST_MAX_AGE: Final = 60.0
# Seconds. Half the lifetime of a token of two hours, which few exceed: a token waits no longer than that anyway.
_LONGEST_DELAY: Final = 3600.0
# Seconds. A server in another region answers within a shorter one.
_LEAST_STORE_TIMEOUT: Final = 0.1
# Seconds. While a server does not answer, a due token waits this long before its daemon goes on alone.
_LONGEST_STORE_TIMEOUT: Final = 30.0
# Seconds. The last tokens arrive that late, and a longer wait is a mistake: 1,000 grants in an hour are one in 4 s.
_LONGEST_SPREAD: Final = 3600.0
_MOST_MODE: Final = 0o777


def parse_duration(value: Any) -> float:
    """Seconds of a duration such as `500ms`, `10s`, `15m`, `1h` or `2d`."""
    seconds = seconds_of(value) if isinstance(value, str) else None
    if seconds is None:
        raise _duration_expected("a duration such as 500ms, 10s, 15m, 1h or 2d", value)
    return _reasonable(seconds)


def _duration_expected(what: str, value: Any) -> PydanticCustomError:
    """An error that shows how a duration without a unit, or with a long one, is written."""
    number, text = _number(value), value if isinstance(value, str) else ""
    if match := re.fullmatch(r"([0-9]{1,6})(?: *(ms|[smhd])[a-z]*)?", text.lower()):
        number = f"{match[1]}{match[2] or ''}"
    if number is None:
        return expected(what, value)
    if number[-1].isdigit():
        return fault(f"a duration needs a unit: write {number}s if these are seconds")
    return fault(f"expected {what}: write {number}")


def _number(value: Any) -> str | None:
    """A whole number, if it is short enough to be meant as one."""
    number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**6
    return str(value) if number else None


def _reasonable(seconds: float) -> float:
    if seconds <= 0:
        raise expected("a duration above zero")
    if seconds > _LONGEST:
        raise expected("a duration of at most 3650d")
    return seconds


def parse_timeout(value: Any) -> float:
    """Seconds of a timeout."""
    seconds = parse_duration(value)
    if seconds > _LONGEST_TIMEOUT:
        raise expected("a timeout of at most 1d")
    return seconds


def parse_store_timeout(value: Any) -> float:
    """Seconds that a Redis server has for an answer."""
    seconds = parse_duration(value)
    if not _LEAST_STORE_TIMEOUT <= seconds <= _LONGEST_STORE_TIMEOUT:
        raise expected("a timeout of 100ms to 30s: a due token waits that long if the server does not answer")
    return seconds


def parse_refresh_before(value: Any) -> RefreshBefore:
    """A percentage of the lifetime, or seconds."""
    if isinstance(value, str) and (match := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)%", value)):
        percent = float(match[1])
        if 0 < percent <= _LARGEST_PERCENT:
            return RefreshBefore(share=percent / 100)
        raise expected("a percentage of the lifetime above 0% and up to 50%")
    what = "a percentage of the lifetime such as 20%, or a duration such as 60s"
    if (number := _number(value)) not in {None, "0"}:
        share = f"{number}% or " if int(value) <= _LARGEST_PERCENT else ""
        raise fault(f"expected {what}: write {share}{number}s")
    if isinstance(value, float) and 0 < value <= _LARGEST_PERCENT / 100:
        raise fault(f"expected {what}: write {value:.0%}")
    if isinstance(value, str) and (match := re.fullmatch("([0-9]{1,2}) *(?:%|percent)", value)):
        raise fault(f"expected {what}: write {match[1]}%")
    if not isinstance(value, str) or seconds_of(value) is None:
        raise _duration_expected(what, value)
    return RefreshBefore(seconds=parse_duration(value))


def parse_rate_limit(value: Any) -> RateLimit:
    """A number of requests and the seconds in which they may be made."""
    match = re.fullmatch(rf"([1-9][0-9]{{0,8}})/(?:{DURATION}|(ms|s|m|h|d))", value) if isinstance(value, str) else None
    if match is None:
        what = "a number of requests per time, such as 10/s or 10/8h"
        if (number := _number(value)) is not None:
            raise fault(f"expected {what}: write {number}/s, {number}/m or {number}/h")
        spoken = r"([1-9][0-9]{0,8}) *(?:/|per) *([1-9][0-9]{0,5})? *(ms|[smhd])[a-z]*"
        if isinstance(value, str) and (close := re.fullmatch(spoken, value.lower())):
            raise fault(f"expected {what}: write {close[1]}/{close[2] or ''}{close[3]}")
        raise expected(what, value)
    return RateLimit(count=int(match[1]), window=_reasonable(float(match[2] or "1") * UNITS[match[3] or match[4]]))


def parse_refused_limit(value: Any) -> RateLimit:
    """A number of refused attempts and the seconds in which they may be made."""
    limit = parse_rate_limit(value)
    if limit.count > MOST_REFUSED.count or limit.window > MOST_REFUSED.window:
        raise expected(f"at most {MOST_REFUSED.count} refused attempts in at most 1d, such as 4/2m")
    return limit


def parse_max_age(value: Any) -> float:
    """Seconds after which a token is refreshed; infinite for `never`."""
    if value == "never":
        return inf
    if not isinstance(value, str) or seconds_of(value) is None:
        raise _duration_expected("a duration such as 24h, or never", value)
    seconds = parse_duration(value)
    if seconds < _LEAST_MAX_AGE:
        raise expected("a duration of at least 1m, or never: each token would be replaced after that time")
    return seconds


def parse_publish_delay(value: Any) -> float:
    """Seconds for which a new token waits; 0 is no delay."""
    seconds = _or_zero(value, "for no delay")
    if seconds > _LONGEST_DELAY:
        raise expected("a duration of at most 1h: providers replicate a token within seconds or minutes")
    return seconds


def parse_startup_spread(value: Any) -> float:
    """Seconds over which the first attempts are spread; 0 if they are not."""
    seconds = _or_zero(value, "to start without delay")
    if seconds > _LONGEST_SPREAD:
        raise expected("a duration of at most 1h: the last tokens arrive that long after the start")
    return seconds


def _or_zero(value: Any, zero: str) -> float:
    """Seconds of a duration that may be 0; `zero` says what 0 is for."""
    seconds = seconds_of(value) if isinstance(value, str) else None
    if seconds is None:
        raise _duration_expected(f"a duration such as 30s, or 0s {zero}", value)
    return seconds


def parse_mode(value: Any) -> int:
    """The mode of a file."""
    return _mode(value, "0640")


def parse_directory_mode(value: Any) -> int:
    """The mode of a directory."""
    # setgid: the files in a directory then get its group.
    if isinstance(value, str) and re.fullmatch(r"2[0-7]{3}", value):
        return int(value, 8)
    return _mode(value, "0750")


def _mode(value: Any, example: str) -> int:
    if isinstance(value, str) and re.fullmatch(r"0?[0-7]{3}", value):
        return int(value, 8)
    if (meant := _meant(value)) is not None:
        raise fault(f'expected a mode in quotes: write "{meant:04o}"')
    number = isinstance(value, int | float) and not isinstance(value, bool)
    raise expected(f'a mode of octal digits in quotes, such as "{example}"', value if not number else "")


def _meant(value: Any) -> int | None:
    """The mode that was meant by `640`, `0o640`, or 416, which is 0640 in decimal."""
    digits = re.fullmatch(r"0?o?([0-7]{3})", str(value))
    for mode in (int(digits[1], 8) if digits else None, value if type(value) is int else None):
        # Nobody gives others more than the group, or the group more than the owner.
        if mode is not None and 0 < mode <= _MOST_MODE and not (mode >> 3 & ~(mode >> 6) | mode & ~(mode >> 3)) & 0o7:
            return mode
    return None
