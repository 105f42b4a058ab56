"""The store of a fleet as one Python object: what the scripts in Redis do, step by step.

The simulation runs over it, and tests/share/test_redis_store.py compares it with real servers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from bearerd.share.types import (
    NEVER,
    Answer,
    Busy,
    Claim,
    Failing,
    Granted,
    Limited,
    Names,
    Stored,
)

REMEMBERED = 7200.0
"""Seconds after a failure's wait for which its count is kept: twice the longest wait."""


LAST_ONCE = 30.0
"""Seconds: last attempts come 15 to 30 s before the expiry, so that the fleet makes one."""
JUST_NOW, LATELY, FEW = 1.0, 60.0, 4
"""As in a daemon's own breaker (admission/breaker.py): how many attempts of a client are in flight at once."""


_Moments = dict[tuple[str, int], float]
"""By target and fence: two targets may have the same fence."""


@dataclass
class _Lock:
    fence: int
    until: float


@dataclass
class _Failure:
    sealed: bytes
    count: int
    at: float
    until: float
    refused: bool


@dataclass
class ModelStore:
    """One server. `clock` returns its Unix time; `announce` is called with the names of what changed."""

    clock: Callable[[], float]
    announce: Callable[[Names], None] = lambda _: None
    tokens: dict[str, tuple[int, bytes, float]] = field(default_factory=dict)
    """By target: fence, sealed token, and when it expires."""
    locks: dict[str, _Lock] = field(default_factory=dict)
    """By target: the last lock, which may have ended."""
    flights: dict[str, _Moments] = field(default_factory=dict)
    """By client, and attempt: when the lease of an attempt in flight ends."""
    worked: dict[str, float] = field(default_factory=dict)
    """By client: when an attempt last got a token."""
    last: dict[str, tuple[int, float]] = field(default_factory=dict)
    """By target: the fence of its last attempt, and until when no other one is granted."""
    failures: dict[str, _Failure] = field(default_factory=dict)
    """By target, and by client if that was refused."""
    refused: dict[str, _Moments] = field(default_factory=dict)
    """By client, and attempt: when it was refused, or may have been."""
    rates: dict[str, _Moments] = field(default_factory=dict)
    """By rate limit, and attempt: from when on it counts for one window."""

    def claim(self, names: Names, claim: Claim) -> Answer:
        now = self.clock()
        stored = self._token(names, now)
        if stored is not None and stored[0] > claim.have:
            return Stored(stored[0], now, stored[1])
        if (lock := self._lock(names.token, now)) is not None:
            return Busy(lock.until - now)
        last = claim.last and self.last.get(names.token, (NEVER, -inf))[1] <= now
        client, own = self._failure(names.client, now), self._failure(names.token, now)
        for failure in (client, own):
            old = claim.changed is not None and failure is not None and failure.at <= now - claim.changed
            if failure is not None and failure.until > now and not last and not old:
                return Failing(failure.sealed, failure.until - now, failure.count, whole_client=failure is client)
        governed = client is not None or (own is not None and own.refused)
        held: Busy | Limited | None = None if last else self._full(names, now, one=client is not None)
        held = (
            held
            or (self._refused_limit(names, now, claim) if governed else None)
            or self._rate_limit(names, now, claim)
        )
        if held is not None:
            return held
        given = self.locks[names.token].fence if names.token in self.locks else NEVER
        fence = max(stored[0] if stored else NEVER, given, claim.seen, round(now * 1e6) - 1) + 1
        self.locks[names.token] = _Lock(fence, now + claim.lease)
        self.flights.setdefault(names.client, {})[names.token, fence] = now + claim.lease
        if last:
            self.last[names.token] = (fence, now + LAST_ONCE)
        if governed:
            self.refused.setdefault(names.client, {})[names.token, fence] = now
        for rate, _ in names.rates:
            # Until its reply, as if that came at the end of the lease.
            self.rates.setdefault(rate, {})[names.token, fence] = now + claim.lease
        return Granted(fence, now, own.count if own else 0, client.count if client else 0, governed)

    def _full(self, names: Names, now: float, *, one: bool) -> Busy | None:
        """Whether as many attempts of the client are in flight as may be."""
        ago = now - self.worked.get(names.client, -inf)
        most = 1 if one or ago > LATELY else FEW if ago > JUST_NOW else inf
        ends = sorted(until for until in self.flights.get(names.client, {}).values() if until > now)
        return Busy(ends[0] - now) if len(ends) >= most else None

    def _refused_limit(self, names: Names, now: float, claim: Claim) -> Limited | None:
        limit = names.refused_limit
        # One of them is reserved for changed credentials.
        allowed = limit.count if claim.changed is not None else max(1, limit.count - 1)
        wait = _wait(self.refused.get(names.client, {}), limit.window, allowed, now)
        return Limited("refused_limit", wait) if wait else None

    def _rate_limit(self, names: Names, now: float, claim: Claim) -> Limited | None:
        wait = 0.0
        for rate, limit in names.rates:
            # Half, so that a due renewal never waits because of requested ones.
            allowed = limit.count // 2 if claim.requested else limit.count
            wait = max(wait, _wait(self.rates.get(rate, {}), limit.window, allowed, now))
        return Limited("rate_limit", wait) if wait else None

    def store(self, names: Names, fence: int, sealed: bytes, ttl: float) -> Stored | None:
        now = self.clock()
        stored = self._token(names, now)
        if (names.token, fence) in self.flights.get(names.client, {}):
            self.worked[names.client] = now
        self._end(names, fence, now)
        if stored is not None and stored[0] > fence:
            self.announce(names)
            return Stored(stored[0], now, stored[1])
        if stored is None or stored[0] < fence:
            self.tokens[names.token] = (fence, sealed, now + ttl)
            self._forget_failures(names)
            self.last.pop(names.token, None)
            self.announce(names)
        return None

    def keep(self, names: Names, fence: int, wait: float) -> None:
        now = self.clock()
        if (names.token, fence) in self.flights.get(names.client, {}):
            self.worked[names.client] = now
        mine = (lock := self._lock(names.token, now)) is not None and lock.fence == fence
        self._end(names, fence, now)
        if mine:
            self._forget_failures(names)
            self.locks[names.token] = _Lock(fence, now + wait)
        self.announce(names)

    def fail(self, names: Names, fence: int, sealed: bytes, wait: float, *, whole_client: bool, refused: bool) -> None:
        now = self.clock()
        stored = self._token(names, now)
        self._end(names, fence, now)
        if refused:
            self.refused.setdefault(names.client, {})[names.token, fence] = now
        if stored is None or stored[0] < fence:  # else the fleet has a token that is newer than this failure
            name = names.client if whole_client else names.token
            known = self._failure(name, now)
            count = (known.count if known else 0) + 1
            self.failures[name] = _Failure(sealed, count, now, now + wait, refused=refused)
        self.announce(names)

    def give_back(self, names: Names, fence: int) -> None:
        now = self.clock()
        self._end(names, fence, now)
        for rate, _ in names.rates:
            self.rates.get(rate, {}).pop((names.token, fence), None)
        if self.last.get(names.token, (NEVER, 0.0))[0] == fence:
            del self.last[names.token]
        self.announce(names)

    def read(self, names: Names) -> Stored:
        now = self.clock()
        stored = self._token(names, now)
        return Stored(NEVER, now, b"") if stored is None else Stored(stored[0], now, stored[1])

    def fences(self, tokens: tuple[str, ...]) -> tuple[int, ...]:
        now = self.clock()
        return tuple(
            self.tokens[token][0] if token in self.tokens and self.tokens[token][2] > now else NEVER for token in tokens
        )

    # -- what happens to servers ---------------------------------------------------------------

    def flush(self) -> None:
        """FLUSHALL."""
        for kept in (
            self.tokens, self.locks, self.flights, self.worked, self.last, self.failures, self.refused, self.rates,
        ):  # fmt: skip
            kept.clear()

    # -- inside --------------------------------------------------------------------------------

    def _token(self, names: Names, now: float) -> tuple[int, bytes, float] | None:
        stored = self.tokens.get(names.token)
        return stored if stored is not None and stored[2] > now else None

    def _lock(self, name: str, now: float) -> _Lock | None:
        lock = self.locks.get(name)
        return lock if lock is not None and lock.until > now else None

    def _failure(self, name: str, now: float) -> _Failure | None:
        failure = self.failures.get(name)
        return failure if failure is not None and failure.until + REMEMBERED > now else None

    def _forget_failures(self, names: Names) -> None:
        self.failures.pop(names.token, None)
        self.failures.pop(names.client, None)

    def _end(self, names: Names, fence: int, now: float) -> None:
        """The attempt ended: it is not in flight, its lock is free, and its rate limits count from now."""
        attempt = (names.token, fence)
        self.flights.get(names.client, {}).pop(attempt, None)
        self.refused.get(names.client, {}).pop(attempt, None)
        for rate, _ in names.rates:
            if attempt in self.rates.get(rate, {}):
                self.rates[rate][attempt] = now
        if (lock := self.locks.get(names.token)) is not None and lock.fence == fence:
            # It is kept for a while, so that a clock that is set back does not give its fence once more.
            self.locks[names.token] = _Lock(fence, now)


def _wait(moments: _Moments, window: float, allowed: int, now: float) -> float:
    """Seconds until fewer than `allowed` of these moments are within the window; 0 if that is so now."""
    if not allowed:
        return window
    recent = sorted(at for at in moments.values() if at + window > now)
    return recent[len(recent) - allowed] + window - now if len(recent) >= allowed else 0.0
