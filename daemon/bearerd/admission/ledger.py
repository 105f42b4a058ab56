"""Attempts of one client that were refused, or may have been. Providers count them and lock accounts. Pure.

Only *governed* attempts are limited: those of a client whose breaker is not closed, and those of targets that are
refused on their own. One refused attempt is reserved for changed credentials.

An entry is a list that becomes one line of the journal. Its age is kept next to it.

    ["sent", number, client, governed, [rate limit, …]] before an attempt is sent
    ["end", number, refused, reached]                   its outcome
    ["refused", client]                                 a refused attempt that was not governed when it was sent
    ["spent", rate limit]                               an attempt that counts against a rate limit
    ["client", client, […] or null]                     the client's refusal; the last entry counts
    ["target", client, target, […] or null]             a target's refusal; the last entry counts

`replay` restores the state of an earlier process from them. An attempt without an end counts as refused.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf, isfinite
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from bearerd.terms import MOST_REFUSED, RateLimit

Entry = list[Any]
# Seconds. A killed process may have waited this long for a reply, if the client is no longer in the config: the default
# timeout, and the time before sending.
_REPLY_WITHIN: Final = 40.0


class Ledger:
    """The refused attempts of one client, and its governed attempts in flight."""

    __slots__ = ("_refused", "changed", "in_flight")

    def __init__(self) -> None:
        # The newest ones, more than any limit's count, so that a changed limit applies to earlier attempts too.
        self._refused: deque[float] = deque(maxlen=MOST_REFUSED.count)
        self.in_flight = 0
        self.changed = False
        """Whether the credentials changed since the reserved attempt was last used."""

    def earliest(self, limit: RateLimit, now: float) -> float:
        """When one more governed attempt may be sent; `inf` if that depends on a reply."""
        recent = self._recent(limit.window, now)
        allowed = limit.count if self.changed else max(1, limit.count - 1)
        too_many = len(recent) + self.in_flight - allowed + 1
        if too_many > len(recent):
            return inf
        return now if too_many <= 0 else recent[too_many - 1] + limit.window

    def send(self, limit: RateLimit, now: float) -> bool:
        """Count a governed attempt as sent. Returns whether it used the one reserved for changed credentials."""
        kept = self.changed and self.count(limit.window, now) + self.in_flight >= max(1, limit.count - 1)
        self.in_flight += 1
        if kept:
            self.changed = False
        return kept

    def give_back(self, kept: bool) -> None:
        """Give a governed attempt back that was not sent or not refused."""
        self.in_flight -= 1
        self.changed = self.changed or kept

    def refused(self, now: float, *, governed: bool) -> None:
        """Count an attempt that was refused, or may have been."""
        if governed:
            self.in_flight -= 1
        self._refused.append(now)

    def count(self, window: float, now: float) -> int:
        """Refused attempts within the last `window` seconds."""
        return len(self._recent(window, now))

    def ages(self, now: float) -> Iterator[float]:
        """The ages, in seconds, of the refused attempts that count, also for a larger limit."""
        return (now - moment for moment in self._recent(MOST_REFUSED.window, now))

    def restore(self, ages: Iterable[float], now: float) -> None:
        """Add refused attempts of an earlier process, given their ages in seconds."""
        moments = sorted((*self._refused, *(now - age for age in ages)))
        self._refused = deque(moments, maxlen=MOST_REFUSED.count)

    def _recent(self, window: float, now: float) -> list[float]:
        """The refused attempts within the last `window` seconds, oldest first."""
        return [moment for moment in self._refused if moment + window > now]


Noted = tuple[float, list[Any] | None]
"""The age of an entry in seconds, and its fields; None if the entry was cleared."""


@dataclass(slots=True)
class Past:
    """The state of an earlier process. Ages are in seconds."""

    refused: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By client: ages of its refused attempts."""
    unknown: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By client: ages of those among them that count as refused because they have no end."""
    spent: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By rate limit: ages of the attempts that count against it."""
    clients: dict[str, Noted] = field(default_factory=dict)
    targets: dict[tuple[str, str], Noted] = field(default_factory=dict)
    """By client and target."""

    def end(self, attempt: _Attempt, age: float, *, refused: bool, reached: bool) -> None:
        """Note that an attempt ended."""
        if refused and attempt.governed:
            self.refused[attempt.client].append(age)
        for rate in attempt.rates if reached else ():
            self.spent[str(rate)].append(age)


class _Attempt(NamedTuple):
    age: float
    client: str
    governed: bool
    rates: list[Any]


def replay(entries: Iterable[tuple[float, Entry]], deadlines: Mapping[str, float] = MappingProxyType({})) -> Past:
    """Restore a state from journal entries, oldest first, each with its age. Malformed entries are skipped.

    `deadlines`: by client, the seconds that a grant may take. The provider may have counted an attempt of a killed
    process at any moment of that time, so it counts as made at the end.
    """
    past = Past()
    open_attempts: dict[int, _Attempt] = {}
    for raw, entry in entries:
        age = max(0.0, raw) if isfinite(raw) else 0.0
        match entry:
            case ["sent", int(number), str(client), bool(governed), list(rates)]:
                open_attempts[number] = _Attempt(age, client, governed, rates)
            case ["end", int(number), bool(refused), bool(reached)] if number in open_attempts:
                past.end(open_attempts.pop(number), age, refused=refused, reached=reached)
            case ["refused", str(client)]:
                past.refused[client].append(age)
            case ["spent", str(rate)]:
                past.spent[rate].append(age)
            case ["client", str(client), fields]:
                past.clients[client] = (age, fields if isinstance(fields, list) else None)
            case ["target", str(client), str(target), fields]:
                past.targets[client, target] = (age, fields if isinstance(fields, list) else None)
    for attempt in open_attempts.values():
        age = max(0.0, attempt.age - deadlines.get(attempt.client, _REPLY_WITHIN))
        past.end(attempt, age, refused=True, reached=True)
        if attempt.governed:
            past.unknown[attempt.client].append(age)
    return past
