"""Counters for the metrics: a few numbers per provider, however many tokens there are."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Literal

from bearerd.grant.outcome import KINDS, Performed
from bearerd.model import Target

BUCKETS: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: from a provider in the same network to the default of `timeout`, which ends every request."""

Event = Literal["files", "hooks", "reloads"]


@dataclass(frozen=True, slots=True)
class Histogram:
    """A histogram of durations: `counts` per bucket, the last one for all longer durations."""

    counts: tuple[int, ...] = (0,) * (len(BUCKETS) + 1)
    total: float = 0.0
    """Seconds."""

    def plus(self, seconds: float) -> Histogram:
        """The histogram with one more duration."""
        bucket = bisect_left(BUCKETS, seconds)
        counts = tuple(count + (index == bucket) for index, count in enumerate(self.counts))
        return Histogram(counts, self.total + seconds)


@dataclass(frozen=True, slots=True)
class Counts:
    """A snapshot of the counters."""

    grants: dict[tuple[str, str], int] = field(default_factory=dict)
    """By provider name and kind of outcome (`KINDS`)."""
    durations: dict[str, Histogram] = field(default_factory=dict)
    """By provider name: response times of the token endpoint."""
    events: dict[tuple[Event, str], int] = field(default_factory=dict)
    """By kind of event and outcome."""


class Counters:
    """The counters. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._grants: Counter[tuple[str, str]] = Counter()
        self._durations: dict[str, Histogram] = {}
        self._events: Counter[tuple[Event, str]] = Counter()

    def grant(self, target: Target, performed: Performed) -> None:
        """Count a grant."""
        provider = target.client.provider.name
        with self._lock:
            self._grants[provider, KINDS[type(performed.outcome)]] += 1
            if performed.took is not None:
                self._durations[provider] = self._durations.get(provider, Histogram()).plus(performed.took)

    def event(self, what: Event, outcome: str, count: int = 1) -> None:
        """Count another event."""
        if count:
            with self._lock:
                self._events[what, outcome] += count

    def counts(self) -> Counts:
        """A snapshot."""
        with self._lock:
            return Counts(dict(self._grants), dict(self._durations), dict(self._events))
