"""Counts what happens, for metrics: a few numbers a provider, whatever the number of tokens."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Literal

from bearerd.grant.outcome import KINDS, Performed
from bearerd.model import Target

BUCKETS: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: from a provider in the same building to the default of `timeout`, beyond which no request lasts."""

Event = Literal["files", "hooks", "reloads"]


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often something took how long: `counts` for each bucket, the last for all that took longer."""

    counts: tuple[int, ...] = (0,) * (len(BUCKETS) + 1)
    total: float = 0.0
    """Seconds."""

    def plus(self, seconds: float) -> Histogram:
        """With one more."""
        bucket = bisect_left(BUCKETS, seconds)
        counts = tuple(count + (index == bucket) for index, count in enumerate(self.counts))
        return Histogram(counts, self.total + seconds)


@dataclass(frozen=True, slots=True)
class Counts:
    """What was counted until now."""

    grants: dict[tuple[str, str], int] = field(default_factory=dict)
    """By the provider's name and the kind of outcome (`KINDS`)."""
    durations: dict[str, Histogram] = field(default_factory=dict)
    """By the provider's name: how long its token endpoint took to answer."""
    events: dict[tuple[Event, str], int] = field(default_factory=dict)
    """By what it is and how it ended."""


class Counters:
    """Counts, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._grants: Counter[tuple[str, str]] = Counter()
        self._durations: dict[str, Histogram] = {}
        self._events: Counter[tuple[Event, str]] = Counter()

    def grant(self, target: Target, performed: Performed) -> None:
        """A grant and what it came to."""
        provider = target.client.provider.name
        with self._lock:
            self._grants[provider, KINDS[type(performed.outcome)]] += 1
            if performed.took is not None:
                self._durations[provider] = self._durations.get(provider, Histogram()).plus(performed.took)

    def event(self, what: Event, outcome: str, count: int = 1) -> None:
        """Something else that happened."""
        if count:
            with self._lock:
                self._events[what, outcome] += count

    def counts(self) -> Counts:
        """All of it, as it is now."""
        with self._lock:
            return Counts(dict(self._grants), dict(self._durations), dict(self._events))
