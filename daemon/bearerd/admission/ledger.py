"""Attempts of one client that were refused, or may be: providers count them and lock accounts. Pure.

Only *governed* attempts are limited: those of a client that is not closed, and those of targets that are refused on
their own. One refused attempt is kept for changed credentials.

An entry is a list that goes into the journal, one a line; its age is kept beside it.

    ["sent", number, client, governed, [budget, …]]     before an attempt is sent
    ["end", number, refused, reached]                   what it came to
    ["refused", client]                                 a refused attempt that was not governed when it was sent
    ["spent", budget]                                   an attempt that a rate limit counts
    ["client", client, […] or null]                     how the client is refused; the latest counts
    ["target", client, target, […] or null]             how one of its targets is refused; the latest counts

`replay` turns them into what an earlier process knew. An attempt without an end counts as refused.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any, Final, NamedTuple

from bearerd.model import RateLimit

Entry = list[Any]
# A process that was killed may have waited this long for the reply: the attempt counts from then.
_REPLY_WITHIN: Final = 40.0


class Ledger:
    """The refused attempts of one client, and the governed ones in flight."""

    __slots__ = ("_refused", "changed", "in_flight")

    def __init__(self) -> None:
        self._refused: deque[float] = deque()
        self.in_flight = 0
        self.changed = False
        """Whether credentials changed since the attempt that is kept for them was last used."""

    def opens(self, limit: RateLimit, now: float) -> float:
        """`now` if one more governed attempt may be sent, else when; `inf` if that depends on a reply."""
        refused, window = self._refused, limit.window
        while refused and refused[0] + window <= now:
            refused.popleft()
        allowed = limit.count if self.changed else max(1, limit.count - 1)
        too_many = len(refused) + self.in_flight - allowed + 1
        if too_many > len(refused):
            return inf
        return now if too_many <= 0 else refused[too_many - 1] + window

    def send(self, limit: RateLimit, now: float) -> bool:
        """A governed attempt goes; whether it used the one that is kept for changed credentials."""
        self.opens(limit, now)
        kept = self.changed and len(self._refused) + self.in_flight >= max(1, limit.count - 1)
        self.in_flight += 1
        if kept:
            self.changed = False
        return kept

    def give_back(self, kept: bool) -> None:
        """A governed attempt did not go after all, or was not refused."""
        self.in_flight -= 1
        self.changed = self.changed or kept

    def refused(self, now: float, *, governed: bool) -> None:
        """An attempt was refused, or may have been."""
        if governed:
            self.in_flight -= 1
        self._refused.append(now)

    def count(self, window: float, now: float) -> int:
        """Refused attempts within the last `window` seconds."""
        return sum(moment + window > now for moment in self._refused)

    def ages(self, window: float, now: float) -> Iterator[float]:
        """How long ago each refused attempt was that still counts."""
        return (now - moment for moment in self._refused if moment + window > now)

    def restore(self, ages: Iterable[float], now: float) -> None:
        """Refused attempts of an earlier process, so many seconds ago."""
        self._refused = deque(sorted((*self._refused, *(now - age for age in ages))))


Noted = tuple[float, list[Any] | None]
"""How long ago something was noted, and what; None: there is nothing to know any more."""


@dataclass(slots=True)
class Past:
    """What an earlier process knew. Ages are seconds before now."""

    refused: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By client: the ages of its refused attempts."""
    spent: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By budget: the ages of attempts that count."""
    clients: dict[str, Noted] = field(default_factory=dict)
    targets: dict[tuple[str, str], Noted] = field(default_factory=dict)
    """By client and target."""

    def end(self, attempt: _Attempt, age: float, *, refused: bool, reached: bool) -> None:
        """An attempt came to its end."""
        if refused and attempt.governed:
            self.refused[attempt.client].append(age)
        for budget in attempt.budgets if reached else ():
            self.spent[str(budget)].append(age)


class _Attempt(NamedTuple):
    age: float
    client: str
    governed: bool
    budgets: list[Any]


def replay(entries: Iterable[tuple[float, Entry]]) -> Past:
    """The entries of a journal, oldest first, each with its age. What makes no sense is passed over."""
    past = Past()
    open_attempts: dict[int, _Attempt] = {}
    for raw, entry in entries:
        age = max(0.0, raw) if isfinite(raw) else 0.0
        match entry:
            case ["sent", int(number), str(client), bool(governed), list(budgets)]:
                open_attempts[number] = _Attempt(age, client, governed, budgets)
            case ["end", int(number), bool(refused), bool(reached)] if number in open_attempts:
                past.end(open_attempts.pop(number), age, refused=refused, reached=reached)
            case ["refused", str(client)]:
                past.refused[client].append(age)
            case ["spent", str(budget)]:
                past.spent[budget].append(age)
            case ["client", str(client), fields]:
                past.clients[client] = (age, fields if isinstance(fields, list) else None)
            case ["target", str(client), str(target), fields]:
                past.targets[client, target] = (age, fields if isinstance(fields, list) else None)
            case _:
                pass
    for attempt in open_attempts.values():
        past.end(attempt, max(0.0, attempt.age - _REPLY_WITHIN), refused=True, reached=True)
    return past
