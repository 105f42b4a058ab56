"""What a reply's headers say about time: the provider's clock, and how long to wait. Pure.

Total: any header in, a finite number or None out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

SKEWED: Final = 30.0
"""Seconds by which clocks that are kept right never differ, however long the request took."""
FOLLOWED: Final = 3600.0
"""Seconds by which the provider's clock is followed at most: a zone or a summer time taken wrongly. A `Date` beyond
that is a fault or a lie, and dated by it an assertion would be good for years."""
# A Retry-After of 30 years says as much as a longer one.
_LONGEST_WAIT: Final = 1e9
_RESETS: Final = ("x-ratelimit-reset", "x-rate-limit-reset", "ratelimit-reset")


def clock_skew(headers: Mapping[str, str], now: float) -> float | None:
    """By how many seconds the provider's clock is ahead of ours, which says `now` (Unix time); from `Date`.

    A second or two is the way and the rounding. None where the reply does not say.
    """
    date = _http_date(headers.get("date", ""))
    if date is None:
        return None
    return date + age(headers) - now


def age(headers: Mapping[str, str]) -> float:
    """For how many seconds a cache kept this reply (RFC 9111 section 5.1)."""
    given = headers.get("age", "").strip()
    return float(given) if re.fullmatch(r"[0-9]{1,9}", given) else 0.0


def followed(skew: float | None) -> float:
    """The part of a skew that our times for the provider follow; none where it is not known."""
    return max(-FOLLOWED, min(skew or 0.0, FOLLOWED))


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait from `now` (Unix time), out of Retry-After in both forms (RFC 9110 10.2.3), else of a reset."""
    # By the provider's own clock where it shows it.
    theirs = now + followed(clock_skew(headers, now))
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]+", value):
        return min(float(value), _LONGEST_WAIT)
    until = _http_date(value)
    if until is not None:
        return max(0.0, until - theirs)
    reset = next((headers[name].strip() for name in _RESETS if name in headers), "")
    if re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,15})?", reset):
        seconds = float(reset)
        # Over 10^9 it is the moment, in Unix time; below, how long it takes. A moment that is past says nothing.
        left = seconds - theirs if seconds > 1e9 else seconds  # noqa: PLR2004
        return left if left > 0 else None
    return None


def _http_date(value: str) -> float | None:
    """The Unix time of a date, or None for anything that is none."""
    if not value:
        return None
    try:
        moment = parsedate_to_datetime(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
