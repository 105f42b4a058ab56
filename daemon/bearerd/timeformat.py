"""Durations and times as text: how people write them, and how bearerd shows them. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
"""Seconds of each unit."""
DURATION: Final = r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)"
"""The form of a duration: `500ms`, `10s`, `15m`, `1h`, `2d`."""


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
    if whole < 120:  # noqa: PLR2004 - `90 s` says more than `1 min`
        return f"{whole} s"
    if not hours:
        return f"{minutes} min"
    if not days:
        return f"{hours} h" + (f" {minutes % 60} min" if minutes % 60 else "")
    return f"{days} d" + (f" {hours % 24} h" if hours % 24 else "")


def rfc3339(wall: float) -> str:
    """A Unix time in UTC, in whole seconds. Rounded down, so that no expiry is shown too late."""
    return datetime.fromtimestamp(int(wall), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
