"""When each name is due. Pure.

A heap makes a change cost microseconds, however many names there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from math import inf
from typing import Final

# A changed time leaves the old entry in the heap. The heap is rebuilt once it holds twice as many entries as names.
_MOST_STALE: Final = 2
# Added to that, so that a heap of a few names is not rebuilt at every change.
_FEW: Final = 64


class DueTimes:
    """One time for each name, in seconds of any clock."""

    __slots__ = ("_at", "_heap")

    def __init__(self) -> None:
        self._at: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def __contains__(self, name: str) -> bool:
        return name in self._at

    def __iter__(self) -> Iterator[str]:
        return iter(self._at)

    def at(self, name: str) -> float:
        """When the name is due; raises KeyError."""
        return self._at[name]

    def set(self, name: str, at: float) -> None:
        """Set when the name is due. This replaces an earlier time."""
        heappush(self._heap, (at, name))  # first: without memory for it, the name keeps its time
        self._at[name] = at
        if len(self._heap) > _MOST_STALE * len(self._at) + _FEW:
            self._heap = [(at, name) for name, at in self._at.items()]
            heapify(self._heap)

    def remove(self, name: str) -> None:
        """Remove the name."""
        self._at.pop(name, None)

    def earliest(self) -> float:
        """The earliest time of all; `inf` without names."""
        heap = self._heap
        while heap and self._at.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else inf

    def take(self, now: float, again: float) -> list[tuple[str, float]]:
        """Return the names that are due with their times, earliest first, and make each due at `again`."""
        taken = []
        while self.earliest() <= now:
            at, name = heappop(self._heap)
            taken.append((name, at))
            self._at[name] = inf
        for name, _ in taken:
            self.set(name, again)
        return taken
