"""One target's entries at its server: reads, claims and stores them, and decides what to make of the answers.

Methods raise ShareUnavailable if the server did not answer, and Unusable if this daemon cannot go on with its answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from math import isfinite
from typing import Final, assert_never

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

    def look(self, have: int, held: Callable[[], tuple[Record, float] | None]) -> Taken | None:
        """The stored token, if it is newer than the held one with the fence `have`. Stores that if it is newer."""
        stored = self.server.link.store.read(self.seat.names)
        fence = stored.fence if stored is not None else 0
        if stored is not None:
            self._check(stored)
        self.seat.dealt, self.seat.seen = fence, max(self.seat.seen, fence, have)
        if stored is not None and fence > max(have, self.seat.unreadable):
            return self._open(stored)
        if fence < have and (ours := held()) is not None:
            record, remaining = ours
            if record.client_id != self.seat.client_id:  # it changed meanwhile, so this is another fleet's token
                return None
            return self.store(replace(record, fence=have), remaining, 0.0)
        return None

    def claim(self, wanted: Wanted) -> Claimed:
        """Claim the next grant. Stored tokens that cannot be used are passed over."""
        with self._sealing():
            self.vault.ready(self.target, self.clock.now().boot)  # without a key, the lock would be of no use
        for _ in range(_MOST_UNUSABLE):
            have = max(wanted.have, self.seat.unreadable)
            self.seat.seen = max(self.seat.seen, have)
            lease = policy.lease(self.target.client.provider.timeout, wanted.remaining)
            claim = Claim(have, self.seat.seen, lease, last=wanted.last, changed=wanted.changed)
            answer = self.server.link.store.claim(self.seat.names, claim)
            claimed = self._understood(wanted, answer)
            if claimed is not None:
                return claimed
        raise Unusable

    def _understood(self, wanted: Wanted, answer: Answer) -> Claimed | None:
        """What an answer means; None if it is a token that cannot be used."""
        if not isinstance(answer, Busy) or wanted.remaining > 0:
            self.seat.busy_since = None
        match answer:
            case Granted():
                return self._granted(answer)
            case Stored():
                self._check(answer)
                self.seat.dealt, self.seat.seen = answer.fence, max(self.seat.seen, answer.fence)
                return self._open(answer)
            case Busy(wait=wait):
                now = self.clock.now().boot
                # A claim after the end of the last lock was held back otherwise, and nobody waited in between.
                if self.seat.busy_since is None or now > self.seat.busy_until + _SOON_AFTER:
                    self.seat.busy_since = now
                self.seat.busy_until = now + wait
                if policy.stuck(
                    self.target.client.provider.timeout,
                    wanted.remaining,
                    wait,
                    now - self.seat.busy_since,
                    last=wanted.last,
                ):
                    self.server.note("lock", f"{self.target.full_name}: another daemon holds the lock for too long")
                    return Alone()
                return Waits("share", max(_LEAST_WAIT, wait))
            case Limited(reason=reason, wait=wait):
                return Waits(reason, max(_LEAST_WAIT, wait))
            case Failing():
                return self._told(answer)
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
            self._check_granted(granted)
            self._set_clock(granted.clock)
            self.seat.seen = granted.fence
        except BaseException:
            with suppress(ShareUnavailable):
                self.server.link.store.give_back(lock.names, lock.fence)
            raise
        return lock

    def _told(self, failing: Failing) -> Told:
        digest = _digest(failing.sealed)
        new, self.seat.told = digest != self.seat.told, digest
        with self._sealing():
            failure = self.vault.open_failure(self.target, self.seat.names, self.seat.client_id, failing)
        return Told(failure, min(max(0.0, failing.wait), _LONGEST_WAIT), max(1, failing.count), new=new)

    def store(self, record: Record, remaining: float, next_due: float) -> Taken | None:
        """Store a token. Returns the newer one that is stored already."""
        token = record.token
        clock = token.obtained.wall if self.server.offset is None else token.obtained.boot + self.server.offset
        entry = TokenEntry(record, clock, max(0.0, next_due - token.obtained.boot))
        with self._sealing():
            sealed = self.vault.seal_token(self.target, self.seat.names, entry)
        newer = self.server.link.store.store(self.seat.names, record.fence, sealed, max(1.0, remaining))
        self.seat.seen = max(self.seat.seen, record.fence)
        if newer is None:
            self.seat.dealt = record.fence
            self.server.stored += 1
            return None
        self._check(newer)
        self.seat.dealt, self.seat.seen = newer.fence, max(self.seat.seen, newer.fence)
        return self._open(newer)

    def _open(self, stored: Stored) -> Taken | None:
        """The token in an entry. None if it cannot be used: it is passed over from now on."""
        with self._sealing():
            entry = self.vault.open_token(self.target, self.seat.names, self.seat.client_id, stored)
        if entry is None:
            self.seat.unreadable = stored.fence
            self.server.note(
                "entry",
                f"{self.target.full_name}: the stored token cannot be opened: another key or another version "
                "sealed it, or it was altered; give all daemons of the fleet the same share.key or client secret",
            )
            return None
        now = self.clock.now()
        record = replace(entry.at(stored.clock, now), fence=stored.fence)
        self.server.taken += 1
        self.seat.busy_since, self.seat.held = None, False
        return Taken(record, record.token.obtained.boot + entry.next_due)

    def _check(self, stored: Stored) -> None:
        if not 0 < stored.fence <= GREATEST_FENCE:
            self.server.note("fence", f"the server named a fencing number out of range; {_TRUST}")
            raise Unusable
        self._set_clock(stored.clock)

    def _check_granted(self, granted: Granted) -> None:
        if not policy.credible(granted.fence, self.seat.seen):
            self.server.note("fence", f"the server gave a fencing number out of order; {_TRUST}")
            raise Unusable

    def _set_clock(self, clock: float) -> None:
        if not isfinite(clock):
            self.server.note("clock", f"the server named no time; {_TRUST}")
            raise Unusable
        self.server.offset = clock - self.clock.now().boot

    def fail(self, lock: Lock, failure: Failure, wait: float, *, whole_client: bool, refused: bool) -> None:
        """Tell the fleet of a failure."""
        with self._sealing():
            sealed = self.vault.seal_failure(
                self.target, lock.names, lock.client_id, failure, whole_client=whole_client
            )
        self.seat.told = _digest(sealed)
        self.server.link.store.fail(
            lock.names, lock.fence, sealed, max(0.0, wait), whole_client=whole_client, refused=refused
        )

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
