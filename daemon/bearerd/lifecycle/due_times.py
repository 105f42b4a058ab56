"""Names by the moment at which they are due, over a heap: a change costs microseconds, however many there are. Pure."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf
from typing import Final

# A changed moment leaves the old entry in the heap. They are dropped together once they outnumber the names.
_MOST_STALE: Final = 2
# A handful of names is not worth the while.
_FEW: Final = 64


class DueTimes:
    """Each name has one moment, in seconds of any clock."""

    __slots__ = ("_at", "_heap")

    def __init__(self) -> None:
        self._at: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def __contains__(self, name: str) -> bool:
        return name in self._at

    def set(self, name: str, at: float) -> None:
        """The name is due at that moment, whatever was said before."""
        self._at[name] = at
        heappush(self._heap, (at, name))
        if len(self._heap) > _MOST_STALE * len(self._at) + _FEW:
            self._heap = [(at, name) for name, at in self._at.items()]
            heapify(self._heap)

    def remove(self, name: str) -> None:
        """The name is never due."""
        self._at.pop(name, None)

    def earliest(self) -> float:
        """The moment of the name that is due first; `inf` without names."""
        heap = self._heap
        while heap and self._at.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else inf

    def take(self, now: float, again: float) -> list[tuple[str, float]]:
        """The names that are due, with their moments, earliest first; each is due at `again` from now on."""
        taken = []
        while self.earliest() <= now:
            at, name = heappop(self._heap)
            taken.append((name, at))
            self._at[name] = inf
        for name, _ in taken:
            self.set(name, again)
        return taken
