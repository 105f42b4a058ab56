"""One target's entries at its server: reads, claims and stores them, and decides what to make of the answers.

Methods raise ShareUnavailable if the server did not answer, and Unusable if this daemon cannot go on with its answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from math import isfinite
from typing import Final, NoReturn, assert_never

from bearerd.clock import Clock
from bearerd.errors import ExtraMissing, SecretUnavailable
from bearerd.grant.outcome import Failure
from bearerd.model import Target
from bearerd.publish.record import Record
from bearerd.share import policy
from bearerd.share.answers import Alone, Claimed, Lock, Taken, Told, Waits, Wanted
from bearerd.share.entry import TokenEntry
from bearerd.share.server import Seat, Server
from bearerd.share.types import (
    GREATEST_FENCE,
    NEVER,
    Answer,
    Busy,
    Claim,
    Failing,
    Granted,
    Limited,
    ShareUnavailable,
    Stored,
)
from bearerd.share.vault import Vault

# Seconds after the end of a lock within which the target claims again if nothing else holds it.
_SOON_AFTER: Final = 5.0
# Seconds: the longest Retry-After that is honoured, with its jitter, and the longest pace of a refused client.
_LONGEST_WAIT: Final = 1.2 * 3600.0
# Seconds between two claims: the server's clock and this one never agree exactly.
_LEAST_WAIT: Final = 0.2
# Answers in a row that are tokens which cannot be used. One is stored at a time, so a second one is rare.
_MOST_UNUSABLE: Final = 3
_TRUST: Final = "check that it is the fleet's own"


class Unusable(Exception):  # noqa: N818 - a state, not a mistake
    """This daemon cannot go on with the server, a key or an entry. The share's view has the reason."""


@dataclass(frozen=True, slots=True)
class Entries:
    """The entries of a target, for one of its turns."""

    server: Server
    seat: Seat
    target: Target
    vault: Vault
    clock: Clock

    @property
    def _timeout(self) -> float:
        return self.target.client.provider.timeout

    def look(self, have: int, held: Callable[[], tuple[Record, float] | None]) -> Taken | None:
        """The stored token, if it is newer than the held one with the fence `have`. Stores that if it is newer."""
        asked = self.clock.now().boot
        stored = self.server.link.store.read(self.seat.names)
        self._check(stored)
        self.seat.dealt, self.seat.seen = stored.fence, max(self.seat.seen, have)
        if stored.fence != self.seat.unreadable:
            self.seat.unreadable = NEVER  # that one is gone
        if stored.fence > max(have, self.seat.unreadable):
            return self._open(stored, asked)
        if stored.fence < have and (ours := held()) is not None:
            record, remaining = ours
            return self.store(replace(record, fence=have), remaining, 0.0)
        return None

    def claim(self, wanted: Wanted) -> Claimed:
        """Claim the next grant. Stored tokens that cannot be used are passed over."""
        with self._sealing():
            self.vault.ready(self.target)  # without a key, the lock would be of no use
        for _ in range(_MOST_UNUSABLE):
            have = max(wanted.have, self.seat.unreadable)
            self.seat.seen = max(self.seat.seen, have)
            lease = policy.lease(self._timeout, wanted.remaining)
            claim = Claim(have, self.seat.seen, lease, last=wanted.last, changed=wanted.changed)
            asked = self.clock.now().boot
            answer = self.server.link.store.claim(self.seat.names, claim)
            claimed = self._understood(wanted, answer, asked)
            if claimed is not None:
                return claimed
        raise Unusable

    def _understood(self, wanted: Wanted, answer: Answer, asked: float) -> Claimed | None:
        """What an answer means; None if it is a token that cannot be used. `asked`: a time (boot clock) before it."""
        if not isinstance(answer, Busy) or wanted.remaining > 0:
            self.seat.busy_since = None
        match answer:
            case Granted():
                return self._granted(answer)
            case Stored():
                self._check(answer)
                self.seat.dealt = answer.fence
                return self._open(answer, asked)
            case Busy(wait=wait):
                now = self.clock.now().boot
                # A claim after the end of the last lock was held back otherwise, and nobody waited in between.
                if self.seat.busy_since is None or now > self.seat.busy_until + _SOON_AFTER:
                    self.seat.busy_since = now
                self.seat.busy_until = now + wait
                if policy.stuck(
                    self._timeout,
                    wanted.remaining,
                    wait,
                    now - self.seat.busy_since,
                    last=wanted.last,
                ):
                    self.server.note("lock", f"{self.target.full_name}: another daemon holds the lock for too long")
                    return Alone()
                return Waits("share", max(_LEAST_WAIT, wait))
            case Limited(reason=reason, wait=wait):
                names = self.seat.names
                limits = [names.refused_limit] if reason == "refused_limit" else [limit for _, limit in names.rates]
                windows = [limit.window for limit in limits]
                if (wanted.last or wanted.remaining <= 0) and not policy.explained(windows, self._timeout, wait):
                    self.server.note("limit", f"{self.target.full_name}: no limit explains the wait; {_TRUST}")
                    return Alone()
                return Waits(reason, max(_LEAST_WAIT, wait))
            case Failing():
                return self._told(wanted, answer)
            case _:
                assert_never(answer)

    def _granted(self, granted: Granted) -> Lock:
        lock = Lock(
            self.seat.names,
            self.seat.client_id,
            granted.fence,
            granted.failures,
            granted.refusals,
            governed=granted.governed,
        )
        try:
            self._set_clock(granted.clock)
            if not policy.credible(granted.fence, self.seat.seen, granted.clock):
                self._refuse_fence("gave a fencing number out of order")
            self.seat.seen = granted.fence
        except BaseException:
            with suppress(ShareUnavailable):
                self.server.link.store.give_back(lock.names, lock.fence)
            raise
        return lock

    def _told(self, wanted: Wanted, failing: Failing) -> Told | Alone:
        with self._sealing():
            failure, ends = self.vault.open_failure(self.target, self.seat.names, self.seat.client_id, failing)
        if policy.outlasted(ends, self._server_time(), wanted.remaining, last=wanted.last):
            self.server.note("failure", f"{self.target.full_name}: the fleet reports a failure for too long; {_TRUST}")
            return Alone()
        digest = _digest(failing.sealed)
        new, self.seat.told = digest != self.seat.told, digest
        return Told(failure, min(max(0.0, failing.wait), _LONGEST_WAIT), max(1, failing.count), new=new)

    def store(self, record: Record, remaining: float, next_due: float) -> Taken | None:
        """Store a token. Returns the newer one that is stored already."""
        if record.client_id != self.seat.client_id:  # it changed meanwhile, so this is another fleet's token
            return None
        token = record.token
        if self.server.offset is None:  # the server has not been asked yet, so it is read and then stored
            self.seat.look = True
            return None
        clock = token.obtained.boot + self.server.offset
        entry = TokenEntry(record, clock, max(0.0, next_due - token.obtained.boot))
        with self._sealing():
            sealed = self.vault.seal_token(self.target, self.seat.names, entry)
        asked = self.clock.now().boot
        newer = self.server.link.store.store(self.seat.names, record.fence, sealed, max(1.0, remaining))
        self.seat.seen = max(self.seat.seen, record.fence)
        if newer is None:
            self.seat.dealt = record.fence
            self.server.stored += 1
            return None
        self._check(newer)
        self.seat.dealt = newer.fence
        return self._open(newer, asked)

    def _open(self, stored: Stored, asked: float) -> Taken | None:
        """The token in an entry. None if it cannot be used: it is passed over from now on.

        `asked`: the time (boot clock) before the server was asked. The process may have been paused since the answer,
        so a later time would make the token younger than it is.
        """
        with self._sealing():
            entry = self.vault.open_token(self.target, self.seat.names, self.seat.client_id, stored)
        if entry is None and not policy.plausible(stored.fence, self.seat.seen, stored.clock):
            self._refuse_fence("named a fencing number out of range")
        self.seat.seen = max(self.seat.seen, stored.fence)
        if entry is None:
            self.seat.unreadable = stored.fence
            self.server.note(
                "entry",
                f"{self.target.full_name}: the stored token cannot be opened: another key or another version sealed "
                "it, or it was altered; give all daemons of the fleet the same share.key or client secret",
            )
            return None
        record = replace(entry.at(stored.clock, asked), fence=stored.fence)
        self.server.taken += 1
        self.seat.busy_since, self.seat.waiting, self.seat.held = None, False, False
        return Taken(record, record.token.obtained.boot + entry.next_due)

    def _check(self, stored: Stored) -> None:
        if not NEVER <= stored.fence <= GREATEST_FENCE:
            self._refuse_fence("named a fencing number out of range")
        self._set_clock(stored.clock)

    def _refuse_fence(self, what: str) -> NoReturn:
        self.server.note("fence", f"the server {what}; {_TRUST}")
        raise Unusable

    def _set_clock(self, clock: float) -> None:
        if not isfinite(clock):
            self.server.note("clock", f"the server named no time; {_TRUST}")
            raise Unusable
        self.server.offset = clock - self.clock.now().boot

    def fail(self, lock: Lock, failure: Failure, wait: float, *, whole_client: bool, refused: bool) -> None:
        """Tell the fleet of a failure."""
        ends = self._server_time() + wait
        with self._sealing():
            sealed = self.vault.seal_failure(
                self.target, lock.names, lock.client_id, failure, ends, whole_client=whole_client
            )
        self.seat.told = _digest(sealed)
        self.server.link.store.fail(
            lock.names, lock.fence, sealed, max(0.0, wait), whole_client=whole_client, refused=refused
        )

    def _server_time(self) -> float:
        # A target reads its entry before its first claim, and that tells the offset.
        return self.clock.now().boot + (self.server.offset or 0.0)

    @contextmanager
    def _sealing(self) -> Iterator[None]:
        """Note what is wrong with the keys. Raises Unusable."""
        try:
            yield
        except (SecretUnavailable, ExtraMissing) as error:
            self.server.note("key", f"the tokens of client {self.target.client.name} cannot be sealed: {error}")
            raise Unusable from None


def _digest(sealed: bytes) -> bytes:
    return hashlib.sha256(sealed).digest()[:12]
