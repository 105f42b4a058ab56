"""Times in a reply's headers: the provider's clock, and how long to wait. Pure.

Total: any header gives a finite number or None.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final

SKEWED: Final = 30.0
"""Seconds. Synchronized clocks differ by less, however long the request took."""
FOLLOWED: Final = 3600.0
"""Seconds of the provider's skew that count at most: as much as a wrong time zone or summer time. By a `Date` beyond
that an assertion could be valid for years."""
# Seconds, 30 years: a bound for arithmetic only.
_LONGEST_WAIT: Final = 1e9
_RESETS: Final = ("x-ratelimit-reset", "x-rate-limit-reset", "ratelimit-reset")


def clock_skew(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds by which the provider's clock (`Date`) is ahead of ours, which shows `now` (Unix time).

    A second or two is due to the network and rounding. None if the reply has no `Date`.
    """
    date = _http_date(headers.get("date", ""))
    if date is None:
        return None
    return date + age(headers) - now


def age(headers: Mapping[str, str]) -> float:
    """Seconds for which a cache kept this reply (RFC 9111 section 5.1)."""
    given = headers.get("age", "").strip()
    return float(given) if re.fullmatch(r"[0-9]{1,9}", given) else 0.0


def followed(skew: float | None) -> float:
    """The part of a skew that counts; 0 if it is not known."""
    return max(-FOLLOWED, min(skew or 0.0, FOLLOWED))


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait from `now` (Unix time), by Retry-After in both forms (RFC 9110 10.2.3)."""
    value = headers.get("retry-after", "").strip()
    # A gateway may add its own to the provider's. Some write fractions or the unit.
    several = [one.strip() for one in value.split(",")]
    if all(re.fullmatch(r"[0-9]+(\.[0-9]+)?s?", one) for one in several):
        return min(max(float(one.rstrip("s")) for one in several), _LONGEST_WAIT)
    until = _http_date(value)
    return max(0.0, until - _theirs(headers, now)) if until is not None else None


def limit_reset(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds from `now` (Unix time) until a rate limit ends, by a reset header; None without a plausible one."""
    reset = next((headers[name].strip() for name in _RESETS if name in headers), "")
    if re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,15})?", reset):
        seconds = float(reset)
        # Above 10^12 it is a Unix time in milliseconds, above 10^9 one in seconds, below a number of seconds. A moment
        # in the past is ignored.
        seconds = seconds / 1000 if seconds > 1e12 else seconds  # noqa: PLR2004
        left = seconds - _theirs(headers, now) if seconds > 1e9 else seconds  # noqa: PLR2004
        return left if left > 0 else None
    return None


def _theirs(headers: Mapping[str, str], now: float) -> float:
    """The time by the provider's own clock, if the reply shows it."""
    return now + followed(clock_skew(headers, now))


@lru_cache(maxsize=16)  # one reply asks several times, and the replies of a burst have the same second
def _http_date(value: str) -> float | None:
    """The Unix time of an HTTP date; None if it is invalid."""
    if not value:
        return None
    try:
        moment = parsedate_to_datetime(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
