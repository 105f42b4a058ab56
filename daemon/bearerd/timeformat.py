"""Durations and times as text: how people write them, and how bearerd shows them. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo
from typing import Final

UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
"""Seconds of each unit."""
DURATION: Final = r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)"
"""The form of a duration: `500ms`, `10s`, `15m`, `1h`, `2d`."""
_MOMENT: Final = re.compile(
    r"\b(until|at|since|of|next attempt at) ([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)"
)
# Seconds. Nearer moments are shown with their seconds: `90 s` says more than `1 min`.
_NEAR: Final = 120


def seconds_of(text: str) -> float | None:
    """Seconds of a duration in the config or on the command line; None for anything else."""
    match = re.fullmatch(DURATION, text)
    return float(match[1]) * UNITS[match[2]] if match else None


def duration(seconds: float) -> str:
    """`800 ms`, `47 s`, `11 min`, `2 h 5 min`, `3 d 4 h`: at most two units, rounded down."""
    seconds = max(0.0, seconds)
    if seconds < 1:
        return f"{int(seconds * 1000)} ms"
    whole = int(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if whole < _NEAR:
        return f"{whole} s"
    if not hours:
        return f"{minutes} min"
    if not days:
        return f"{hours} h" + (f" {minutes % 60} min" if minutes % 60 else "")
    return f"{days} d" + (f" {hours % 24} h" if hours % 24 else "")


def after(seconds: float) -> str:
    """A wait in words: `now`, `in 1 s`, `in 30 s`; rounded to whole seconds."""
    whole = round(seconds)
    return f"in {duration(whole)}" if whole > 0 else "now"


def rfc3339(wall: float) -> str:
    """A Unix time in UTC, in whole seconds. Rounded down, so that no expiry is shown too late."""
    return datetime.fromtimestamp(int(wall), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def clock_time(wall: float, now: float, zone: tzinfo | None = None) -> str:
    """A Unix time as people read it: `14:32`, `14:32:10` if it is near, `29 Nov 14:32` on another day.

    `zone`: the time zone; None for this machine's.
    """
    at, today = datetime.fromtimestamp(int(wall), zone), datetime.fromtimestamp(int(now), zone)
    if at.date() != today.date():
        return f"{at.day} {at:%b %H:%M}"
    return f"{at:%H:%M:%S}" if abs(wall - now) < _NEAR else f"{at:%H:%M}"


def spoken(text: str, now: float, zone: tzinfo | None = None) -> str:
    """A text in which each RFC 3339 time after `until`, `at`, `since` or `of` is a duration and a local time.

    `good for 11 min (until 14:32)`, `next attempt in 30 s (at 14:32:10)`, `expired 20 min ago (at 14:01)`, `since
    13:30`, `of 13:30`. `now`: the Unix time; `zone` as in `clock_time`.
    """

    def told(match: re.Match[str]) -> str:
        try:
            wall = datetime.fromisoformat(match[2]).timestamp()
            clock = clock_time(wall, now, zone)
        except (ValueError, OverflowError):  # no such day, or one that is in the year 0 or 10000 in this zone
            return match[0]
        before, word = match[1].removesuffix("at"), match[1].rpartition(" ")[2]
        left = wall - now
        said = f"{word} {clock}"
        if word != match[1]:
            return f"{before}in {duration(left)} ({said})" if left >= 1 else f"{before}now"
        if word in {"since", "of"} or (word == "until" and left <= 0):
            return said
        if word == "until":
            return f"for {duration(left)} ({said})"
        return f"in {duration(left)} ({said})" if left > 0 else f"{duration(-left)} ago ({said})"

    return _MOMENT.sub(told, text)
