"""What a check finds. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check: `ok`, `failed`, or a `warning`."""

    subject: str
    verdict: str
    level: str = "ok"
    details: tuple[tuple[str, str], ...] = ()
    """Details, each with a name and a text."""
