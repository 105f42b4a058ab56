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
from bearerd.grant.outcome import Failure, Refused
from bearerd.model import Target
from bearerd.publish.record import Record
from bearerd.share import policy
from bearerd.share.answers import Alone, Claimed, Delayed, FleetFailure, Lock, Taken, Wanted
from bearerd.share.entry import MOST_REFUSED, TokenEntry
from bearerd.share.sealer import Sealer
from bearerd.share.server import EntryState, Server
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
    state: EntryState
    target: Target
    sealer: Sealer
    clock: Clock

    @property
    def _longest_grant(self) -> float:
        return self.target.longest_grant

    def look(self, have: int, held: Callable[[], tuple[Record, float] | None]) -> Taken | None:
        """The stored token, if it is newer than the held one with the fence `have`. Stores that if it is newer."""
        asked = self.clock.now().boot
        stored = self.server.link.store.read(self.state.names)
        self._check(stored)
        self.state.stored_fence, self.state.seen = stored.fence, max(self.state.seen, have)
        if stored.fence != self.state.unreadable:
            self.state.unreadable = NEVER  # that one is gone
        if stored.fence > max(have, self.state.unreadable):
            return self._open(stored, asked)
        if stored.fence < have and (ours := held()) is not None:
            record, remaining = ours
            return self.store(replace(record, fence=have), remaining, 0.0)
        return None

    def claim(self, wanted: Wanted) -> Claimed:
        """Claim the next grant. Stored tokens that cannot be used are passed over."""
        with self._sealing():
            self.sealer.ready(self.target)  # without a key, the lock would be of no use
        changed = wanted.changed
        for _ in range(_MOST_UNUSABLE):
            have = max(wanted.have, self.state.unreadable)
            self.state.seen = max(self.state.seen, have)
            lease = policy.lease(self._longest_grant, wanted.remaining)
            claim = Claim(have, self.state.seen, lease, last=wanted.last, changed=changed, requested=wanted.requested)
            asked = self.clock.now().boot
            answer = self.server.link.store.claim(self.state.names, claim)
            if changed is None and isinstance(answer, Failing) and self._of_others(answer):
                changed = 0.0
                continue
            if isinstance(answer, Granted) and self.clock.now().boot >= asked + lease:
                # This process was paused, and another daemon may be making the request already.
                self.server.link.store.give_back(self.state.names, answer.fence)
                continue
            claimed = self._understood(wanted, answer, asked)
            if claimed is not None:
                return claimed
        raise Unusable

    def _understood(self, wanted: Wanted, answer: Answer, asked: float) -> Claimed | None:
        """What an answer means; None if it is a token that cannot be used. `asked`: a time (boot clock) before it."""
        if not isinstance(answer, Busy) or wanted.remaining > 0:
            self.state.busy_since = None
        match answer:
            case Granted():
                return self._granted(answer)
            case Stored():
                self._check(answer)
                self.state.stored_fence = answer.fence
                return self._open(answer, asked)
            case Busy(wait=wait):
                now = self.clock.now().boot
                # A claim after the end of the last lock was held back otherwise, and nobody waited in between.
                if self.state.busy_since is None or now > self.state.busy_until + _SOON_AFTER:
                    self.state.busy_since = now
                self.state.busy_until = now + wait
                if policy.stuck(
                    self._longest_grant,
                    wanted.remaining,
                    wait,
                    now - self.state.busy_since,
                    last=wanted.last,
                ):
                    self.server.note(
                        "lock",
                        f"{self.target.full_name}: another daemon has held the lock for too long, so it is ignored; "
                        "check that no other program writes to this server",
                    )
                    return Alone()
                return Delayed("share", max(_LEAST_WAIT, wait))
            case Limited(reason=reason, wait=wait):
                names = self.state.names
                limits = [names.refused_limit] if reason == "refused_limit" else [limit for _, limit in names.rates]
                windows = [limit.window for limit in limits]
                if (wanted.last or wanted.remaining <= 0) and not policy.explained(windows, self._longest_grant, wait):
                    self.server.note("limit", f"{self.target.full_name}: no limit explains the wait; {_TRUST}")
                    return Alone()
                return Delayed(reason, max(_LEAST_WAIT, wait))
            case Failing():
                return self._failing(wanted, answer)
            case _:
                assert_never(answer)

    def _granted(self, granted: Granted) -> Lock:
        lock = Lock(
            self.state.names,
            self.state.client_id,
            granted.fence,
            granted.failures,
            granted.refusals,
            governed=granted.governed,
        )
        try:
            self._set_clock(granted.clock)
            if not policy.credible(granted.fence, self.state.seen, granted.clock):
                self._refuse_fence("the server returned a fencing number out of order")
            self.state.seen = granted.fence
        except BaseException:
            with suppress(ShareUnavailable):
                self.server.link.store.give_back(lock.names, lock.fence)
            raise
        return lock

    def _failing(self, wanted: Wanted, failing: Failing) -> FleetFailure | Alone:
        with self._sealing():
            failure, ends = self.sealer.open_failure(self.target, self.state.names, self.state.client_id, failing)
        if policy.outlasted(ends, self._server_time(), wanted.remaining, last=wanted.last):
            self.server.note("failure", f"{self.target.full_name}: the fleet reports a failure for too long; {_TRUST}")
            return Alone()
        digest = _digest(failing.sealed)
        new, self.state.last_failure = digest != self.state.last_failure, digest
        return FleetFailure(failure, min(max(0.0, failing.wait), _LONGEST_WAIT), max(1, failing.count), new=new)

    def _of_others(self, failing: Failing) -> bool:
        """Whether the client was refused with credentials that this daemon does not have, and its own were not tried.

        They may have been corrected on this machine, or be wrong on another one.
        """
        if not failing.whole_client:
            return False
        try:
            known = self.sealer.refused(self.target, self.state.names, self.state.client_id, failing)
            own = self.sealer.credentials(self.target)
        except (SecretUnavailable, ExtraMissing):
            return False
        if known is not None:
            self.state.refused = tuple(dict.fromkeys((*self.state.refused, *known)))[-MOST_REFUSED:]
        # An entry that cannot be opened is of a daemon with another key, which without a `share.key` is its secret.
        return own not in self.state.refused and len(self.state.refused) < MOST_REFUSED

    def store(self, record: Record, remaining: float, next_due: float) -> Taken | None:
        """Store a token. Returns the newer one that is stored already."""
        if record.client_id != self.state.client_id:  # it changed meanwhile, so this is another fleet's token
            return None
        token = record.token
        if self.server.offset is None:  # the server has not been asked yet; the first look stores the token
            return None
        clock = token.obtained.boot + self.server.offset
        entry = TokenEntry(record, clock, max(0.0, next_due - token.obtained.boot))
        with self._sealing():
            sealed = self.sealer.seal_token(self.target, self.state.names, entry)
        asked = self.clock.now().boot
        newer = self.server.link.store.store(self.state.names, record.fence, sealed, max(1.0, remaining))
        self.state.seen = max(self.state.seen, record.fence)
        self.state.refused = ()
        if newer is None:
            self.state.stored_fence = record.fence
            self.server.stored += 1
            return None
        self._check(newer)
        self.state.stored_fence = newer.fence
        return self._open(newer, asked)

    def _open(self, stored: Stored, asked: float) -> Taken | None:
        """The token in an entry. None if it cannot be used: it is passed over from now on.

        `asked`: the time (boot clock) before the server was asked. The process may have been paused since the answer,
        so a later time would make the token younger than it is.
        """
        with self._sealing():
            entry = self.sealer.open_token(self.target, self.state.names, self.state.client_id, stored)
        if entry is None and not policy.plausible(stored.fence, self.state.seen, stored.clock):
            self._refuse_fence("the server returned a fencing number out of range")
        self.state.seen = max(self.state.seen, stored.fence)
        if entry is None:
            self.state.unreadable = stored.fence
            self.server.note(
                "entry",
                f"{self.target.full_name}: the stored token cannot be decrypted: it was encrypted with another "
                "key or by another version, or altered; give all daemons of the fleet the same share.key or client "
                "secret",
            )
            return None
        record = replace(entry.at(stored.clock, asked), fence=stored.fence)
        self.server.taken += 1
        self.state.busy_since, self.state.waiting, self.state.held = None, False, False
        return Taken(record, record.token.obtained.boot + entry.next_due)

    def _check(self, stored: Stored) -> None:
        if not NEVER <= stored.fence <= GREATEST_FENCE:
            self._refuse_fence("the server returned a fencing number out of range")
        self._set_clock(stored.clock)

    def _refuse_fence(self, what: str) -> NoReturn:
        self.server.note("fence", f"{what}; {_TRUST}")
        raise Unusable

    def _set_clock(self, clock: float) -> None:
        if not isfinite(clock):
            self.server.note("time", f"the server returned no time; {_TRUST}")
            raise Unusable
        self.server.offset = clock - self.clock.now().boot

    def fail(self, lock: Lock, failure: Failure, wait: float, *, whole_client: bool, refused: bool) -> None:
        """Tell the fleet of a failure."""
        ends = self._server_time() + wait
        with self._sealing():
            if isinstance(failure, Refused) and whole_client:
                own = self.sealer.credentials(self.target)
                self.state.refused = tuple(dict.fromkeys((*self.state.refused, own)))
            sealed = self.sealer.seal_failure(
                self.target,
                lock.names,
                lock.client_id,
                failure,
                ends,
                whole_client=whole_client,
                refused=self.state.refused,
            )
        self.state.last_failure = _digest(sealed)
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
            self.server.note("key", f"the tokens of client {self.target.client.name} cannot be encrypted: {error}")
            raise Unusable from None


def _digest(sealed: bytes) -> bytes:
    return hashlib.sha256(sealed).digest()[:12]
