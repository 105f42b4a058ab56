"""A priority queue of waiting targets, ordered by urgency. Pure.

The order: valid tokens that expire within 5 s; then targets without a valid token, fewest failures first; then valid
tokens by expiry. The order changes as time passes, when a token comes within 5 s of its expiry or expires. Two heaps
make up for that: only their tops are compared, so a decision costs O(log n).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import Final, Generic, TypeVar

from bearerd.admission.types import Ask

URGENT: Final = 5.0
"""Seconds before expiry from which a valid token goes first: a grant usually takes well under 5 s."""
# Removed entries stay in the heaps until they outnumber the live ones by this many, so that removing is cheap.
_SLACK: Final = 64

K = TypeVar("K")
Urgency = tuple[float, ...]


def urgency(ask: Ask, now: float) -> Urgency:
    """A sort key. The lowest is the most urgent."""
    expires = ask.expires
    if expires is None:
        return (1, ask.failures, -inf)
    if expires <= now:
        return (1, ask.failures, expires)
    if expires - now <= URGENT:
        return (0, expires)
    return (2, expires)


@dataclass(slots=True, eq=False)
class _Entry(Generic[K]):
    key: K
    ask: Ask
    rank: int
    number: int
    live: bool = True


class Queue(Generic[K]):
    """A queue of keys, each with a request. Ordered by `rank`, then urgency, then arrival."""

    __slots__ = ("_entries", "_numbers", "_valid", "_without")

    def __init__(self) -> None:
        self._entries: dict[K, _Entry[K]] = {}
        self._numbers = count()
        # Targets whose token was valid when they were pushed: by rank, then expiry.
        self._valid: list[tuple[int, float, int, int, _Entry[K]]] = []
        # Targets without a valid token: by rank, then failures, then expiry.
        self._without: list[tuple[int, int, float, int, int, _Entry[K]]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[K]:
        return iter(self._entries)

    def ask(self, key: K) -> Ask:
        """The request of this key."""
        return self._entries[key].ask

    def push(self, key: K, ask: Ask, now: float, rank: int = 0) -> None:
        """Add a key. One that is already queued keeps its place among equals."""
        known = self._entries.get(key)
        if known is None:
            number = next(self._numbers)
        elif known.rank == rank and known.ask.expires == ask.expires and known.ask.failures == ask.failures:
            known.ask = ask
            return
        else:
            known.live = False
            number = known.number
        entry = _Entry(key, ask, rank, number)
        self._entries[key] = entry
        self._insert(entry, now)
        if len(self._valid) + len(self._without) > 2 * len(self._entries) + _SLACK:
            self._compact()

    def discard(self, key: K) -> None:
        """Remove a key if it is queued."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            entry.live = False

    def top(self, now: float) -> K | None:
        """The most urgent key."""
        valid, without = self._valid, self._without
        while valid:
            rank, expires, *_, entry = valid[0]
            if not entry.live:
                heappop(valid)
            elif expires <= now:
                heappop(valid)
                self._insert(entry, now)
            else:
                break
        while without and not without[0][-1].live:
            heappop(without)
        if not valid:
            return without[0][-1].key if without else None
        rank, expires, *_, entry = valid[0]
        if not without or rank < without[0][0] or (rank == without[0][0] and expires - now <= URGENT):
            return entry.key
        return without[0][-1].key

    def changes_at(self, now: float) -> float:
        """When the most urgent key may become another one by the mere passing of time; `inf` if it cannot."""
        if self.top(now) is None or not self._valid:
            return inf
        expires = self._valid[0][1]
        return expires - URGENT if expires - URGENT > now else expires

    def _insert(self, entry: _Entry[K], now: float) -> None:
        ask = entry.ask
        if ask.expires is not None and ask.expires > now:
            heappush(self._valid, (entry.rank, ask.expires, entry.number, next(self._numbers), entry))
        else:
            expires = -inf if ask.expires is None else ask.expires
            heappush(self._without, (entry.rank, ask.failures, expires, entry.number, next(self._numbers), entry))

    def _compact(self) -> None:
        self._valid = [item for item in self._valid if item[-1].live]
        self._without = [item for item in self._without if item[-1].live]
        heapify(self._valid)
        heapify(self._without)
