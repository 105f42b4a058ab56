"""Whether a figure stayed flat over a run. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

LEAST_SAMPLES: Final = 9
"""Three in each third: a median of fewer is one sample."""


@dataclass(frozen=True)
class Growth:
    """The medians of the first and of the last third, and how much the figure may grow between them."""

    name: str
    first: float
    last: float
    allowed: float

    @property
    def flat(self) -> bool:
        """Whether it stayed within what is allowed."""
        return self.last - self.first <= self.allowed

    def __str__(self) -> str:
        sign = "" if self.flat else ", which is TOO MUCH"
        return f"{self.name} {self.first:.1f} to {self.last:.1f} ({self.allowed:.1f} more allowed{sign})"


def growth(name: str, samples: Sequence[float], share: float, more: float) -> Growth:
    """Compare thirds; it may grow by this share of the first one, and by `more`.

    Medians, so that a burst does not count: memory that is in use for some seconds is no leak. Raises ValueError for
    too few samples.
    """
    if len(samples) < LEAST_SAMPLES:
        raise ValueError(f"{len(samples)} samples of {name} are too few to judge it")
    third = len(samples) // 3
    first, last = median(samples[:third]), median(samples[-third:])
    return Growth(name, first, last, first * share + more)
