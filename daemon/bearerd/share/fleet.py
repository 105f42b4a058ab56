"""The fleet of each client that shares: looks for newer tokens, claims grants, and stores what they bring.

No method raises if the server, a key or an entry cannot be used: the answer then says how to go on, and the share's
view has the error. Call the methods about a target from its turn only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from math import inf, isfinite
from typing import Final, assert_never

from bearerd.clock import Clock
from bearerd.errors import ExtraMissing, SecretUnavailable
from bearerd.grant.outcome import Failure
from bearerd.model import Target
from bearerd.publish.record import Record
from bearerd.share import policy
from bearerd.share.answers import Alone, Claimed, Lock, Taken, Told, Waits, Wanted
from bearerd.share.entry import TokenEntry
from bearerd.share.names import names_of
from bearerd.share.server import Connect, Seat, Server, Wake
from bearerd.share.types import (
    GREATEST_FENCE,
    Answer,
    Busy,
    Claim,
    Failing,
    Granted,
    Limited,
    ShareUnavailable,
    ShareView,
    Stored,
)
from bearerd.share.vault import Vault
from bearerd.terms import Redis

# Seconds after the end of a lock within which the target claims again if nothing else holds it.
_SOON_AFTER: Final = 5.0
# Seconds: the longest Retry-After that is honoured, with its jitter, and the longest pace of a refused client.
_LONGEST_WAIT: Final = 1.2 * 3600.0
# Seconds between two claims: the server's clock and this one never agree exactly.
_LEAST_WAIT: Final = 0.2
# Answers in a row that are tokens which cannot be used. One is stored at a time, so a second one is rare.
_MOST_UNUSABLE: Final = 3
_TRUST: Final = "check that it is the fleet's own"


class _Unusable(Exception):  # noqa: N818 - a state, not a mistake
    """The server answers, but this daemon cannot go on with it; noted already."""


class Fleet:
    """The fleets of all clients. Thread-safe."""

    def __init__(
        self,
        clock: Clock,
        dice: Callable[[], float],
        environ: Mapping[str, str],
        connect: Connect,
        wake: Wake,
        client_id: Callable[[Target], str | None],
    ) -> None:
        self._clock = clock
        self._dice = dice
        self._connect = connect
        self._wake = wake
        self._client_id = client_id
        self._vault = Vault(environ)
        self._servers: dict[Redis, Server] = {}
        self._clients: dict[Redis, tuple[str, ...]] = {}

    # -- the config ------------------------------------------------------------------------------

    def apply(self, targets: Iterable[Target]) -> None:
        """Connect to the servers of these targets, and to no others."""
        clients: dict[Redis, dict[str, None]] = {}
        for target in targets:
            if target.client.share is not None:
                clients.setdefault(target.client.share.redis, {})[target.client.name] = None
        before = self._servers
        self._servers = {redis: before.get(redis) or self._server_of(redis) for redis in clients}
        self._clients = {redis: tuple(names) for redis, names in clients.items()}
        for name in {name for names in clients.values() for name in names}:
            self._vault.forget(name)
        for redis, server in self._servers.items():
            if redis in before:
                server.look_again()
            else:
                server.link.start()
        for redis, server in before.items():
            if redis not in self._servers:
                server.link.stop()

    def credentials_changed(self, client: str) -> None:
        """Read the keys of this client again, and its entries at the next turns of its targets."""
        self._vault.forget(client)
        for server in self._servers.values():
            server.look_again(client)

    def stop(self) -> None:
        """Close all connections."""
        for server in self._servers.values():
            server.link.stop()

    def views(self) -> tuple[ShareView, ...]:
        """The servers, for status and metrics."""
        return tuple(server.view(self._clients.get(redis, ())) for redis, server in self._servers.items())

    # -- one target, in its turn -----------------------------------------------------------------

    def look(self, target: Target, have: int, held: Callable[[], tuple[Record, float] | None]) -> Taken | None:
        """Take the stored token if it is newer than the held one with the fence `have`; costs nothing if none can be.

        `held` returns the held token and for how long it is valid. It is stored if the server lost it.
        """
        try:
            server, seat = self._at(target)
            fresh = server.link.fresh()
            if not server.link.usable() or (fresh and not seat.look):
                return None
            seat.look = False
            try:
                return self._look(server, seat, target, have, held)
            except ShareUnavailable:
                seat.look = True
        except _Unusable:
            pass
        return None

    def claim(self, target: Target, wanted: Wanted) -> Claimed:
        """Claim the next grant of the fleet. A `Lock` must end with `store`, `keep`, `fail` or `give_back`."""
        seat: Seat | None = None
        try:
            server, seat = self._at(target)
            seat.waiting, seat.held = True, False
            if server.link.usable():
                claimed = self._claim(server, seat, target, wanted)
                seat.waiting = isinstance(claimed, Waits)
                return claimed
        except (ShareUnavailable, _Unusable):
            pass
        share = target.client.share
        if share is None or policy.goes_alone(share.when_unavailable, wanted.remaining, last=wanted.last):
            return Alone()
        if seat is not None:
            seat.held = True
        return Waits("share_unavailable", inf)

    def own_fence(self, target: Target, have: int, wall: float) -> int:
        """The fence of a token that this daemon obtained by itself at this time (wall clock)."""
        try:
            server, seat = self._at(target)
        except _Unusable:
            return policy.own_fence(have, wall, self._dice())
        if server.offset is not None:  # by the server's clock, so that the newest of two such tokens is known
            now = self._clock.now()
            wall += server.offset + now.boot - now.wall
        seat.seen = policy.own_fence(max(seat.seen, have), wall, self._dice())
        seat.look = True  # it is stored when that is possible
        return seat.seen

    def store(self, target: Target, record: Record, remaining: float, *, next_due: float = 0.0) -> Taken | None:
        """Store a token, under the lock or without one. Returns the newer one that the fleet has, if there is one.

        `next_due`: when (boot clock) the provider is asked about it next, if it returned the same token again.
        """
        try:
            server, seat = self._at(target)
            if not server.link.usable():
                seat.look = True
                return None
            try:
                return self._store(server, seat, target, record, remaining, next_due)
            except ShareUnavailable:
                seat.look = True
        except _Unusable:
            pass
        return None

    def keep(self, target: Target, lock: Lock, wait: float) -> None:
        """The provider returned the token that the fleet has; it is asked again after `wait` seconds."""
        self._end(target, lambda server: server.link.store.keep(lock.names, lock.fence, max(0.0, wait)))

    def fail(
        self, target: Target, lock: Lock, failure: Failure, wait: float, *, whole_client: bool, refused: bool
    ) -> None:
        """Tell the fleet of a failure, after which it waits. `refused`: whether the provider may count it."""

        def fail(server: Server) -> None:
            _, seat = self._at(target)
            with self._sealing(server, target):
                sealed = self._vault.seal_failure(
                    target, lock.names, lock.client_id, failure, whole_client=whole_client
                )
            seat.told = _digest(sealed)
            server.link.store.fail(
                lock.names, lock.fence, sealed, max(0.0, wait), whole_client=whole_client, refused=refused
            )

        self._end(target, fail)

    def give_back(self, target: Target, lock: Lock) -> None:
        """Free the lock: nothing was sent."""
        self._end(target, lambda server: server.link.store.give_back(lock.names, lock.fence))

    def pass_over(self, target: Target, fence: int) -> None:
        """Note that a token that was taken cannot be used: by this machine's clocks it has expired."""
        try:
            _, seat = self._at(target)
        except _Unusable:
            return
        seat.unreadable = max(seat.unreadable, fence)

    def clocks_differ(self, target: Target, seconds: float) -> None:
        """Note how far this machine's clock is from the server's, or from that of the daemon that stored a token."""
        share = target.client.share
        server = self._servers.get(share.redis) if share is not None else None
        if server is not None:
            server.note(
                "clock",
                f"the clocks of this machine, of the server and of another daemon differ by {seconds:.0f} s; "
                "synchronize them",
            )

    def forget(self, target: Target) -> None:
        """Remove a target that is no longer wanted, or whose share changed."""
        for server in self._servers.values():
            server.drop(target.full_name)

    # -- inside ----------------------------------------------------------------------------------

    def _server_of(self, redis: Redis) -> Server:
        return Server(redis, self._connect, self._wake, lambda: self._clock.now().boot)

    def _at(self, target: Target) -> tuple[Server, Seat]:
        """The server of a target, and its seat there. Raises _Unusable."""
        client = target.client
        server = self._servers.get(client.share.redis) if client.share is not None else None
        if server is None:  # a new config is being applied
            raise _Unusable
        client_id = client.client_id if isinstance(client.client_id, str) else self._client_id(target)
        if client_id is None:
            server.note("client_id", f"{client.client_id}: the client id of {client.name} cannot be read; correct it")
            raise _Unusable
        return server, server.seat(target, client_id, lambda: names_of(target, client_id))

    @contextmanager
    def _sealing(self, server: Server, target: Target) -> Iterator[None]:
        """Note what is wrong with the keys. Raises _Unusable."""
        try:
            yield
        except (SecretUnavailable, ExtraMissing) as error:
            server.note("key", f"the tokens of client {target.client.name} cannot be sealed: {error}")
            raise _Unusable from None

    def _look(
        self, server: Server, seat: Seat, target: Target, have: int, held: Callable[[], tuple[Record, float] | None]
    ) -> Taken | None:
        stored = server.link.store.read(seat.names)
        fence = stored.fence if stored is not None else 0
        if stored is not None:
            self._check(server, stored)
        seat.dealt, seat.seen = fence, max(seat.seen, fence, have)
        if stored is not None and fence > max(have, seat.unreadable):
            return self._open(server, seat, target, stored)
        if fence < have and (ours := held()) is not None:
            record, remaining = ours
            if record.client_id != seat.client_id:  # it changed meanwhile, so this is another fleet's token
                return None
            return self._store(server, seat, target, replace(record, fence=have), remaining, 0.0)
        return None

    def _claim(self, server: Server, seat: Seat, target: Target, wanted: Wanted) -> Claimed:
        with self._sealing(server, target):
            self._vault.ready(target, self._clock.now().boot)  # without a key, the lock would be of no use
        for _ in range(_MOST_UNUSABLE):
            have = max(wanted.have, seat.unreadable)
            seat.seen = max(seat.seen, have)
            lease = policy.lease(target.client.provider.timeout, wanted.remaining)
            claim = Claim(have, seat.seen, lease, last=wanted.last, changed=wanted.changed)
            answer = server.link.store.claim(seat.names, claim)
            claimed = self._understood(server, seat, target, wanted, answer)
            if claimed is not None:
                return claimed
        raise _Unusable

    def _understood(self, server: Server, seat: Seat, target: Target, wanted: Wanted, answer: Answer) -> Claimed | None:
        """What an answer means; None if it is a token that cannot be used."""
        if not isinstance(answer, Busy) or wanted.remaining > 0:
            seat.busy_since = None
        match answer:
            case Granted():
                return self._granted(server, seat, target, answer)
            case Stored():
                self._check(server, answer)
                seat.dealt, seat.seen = answer.fence, max(seat.seen, answer.fence)
                return self._open(server, seat, target, answer)
            case Busy(wait=wait):
                now = self._clock.now().boot
                # A claim after the end of the last lock was held back otherwise, and nobody waited in between.
                if seat.busy_since is None or now > seat.busy_until + _SOON_AFTER:
                    seat.busy_since = now
                seat.busy_until = now + wait
                if policy.stuck(
                    target.client.provider.timeout, wanted.remaining, wait, now - seat.busy_since, last=wanted.last
                ):
                    server.note("lock", f"{target.full_name}: another daemon holds the lock for too long")
                    return Alone()
                return Waits("share", max(_LEAST_WAIT, wait))
            case Limited(reason=reason, wait=wait):
                return Waits(reason, max(_LEAST_WAIT, wait))
            case Failing():
                return self._told(server, seat, target, answer)
            case _:
                assert_never(answer)

    def _granted(self, server: Server, seat: Seat, target: Target, granted: Granted) -> Lock:
        lock = Lock(
            seat.names, seat.client_id, granted.fence, granted.failures, granted.refusals, governed=granted.governed
        )
        try:
            self._check_granted(server, seat, granted)
            self._set_clock(server, granted.clock)
            seat.seen = granted.fence
        except BaseException:
            self.give_back(target, lock)
            raise
        return lock

    def _told(self, server: Server, seat: Seat, target: Target, failing: Failing) -> Told:
        digest = _digest(failing.sealed)
        new, seat.told = digest != seat.told, digest
        with self._sealing(server, target):
            failure = self._vault.open_failure(target, seat.names, seat.client_id, failing)
        return Told(failure, min(max(0.0, failing.wait), _LONGEST_WAIT), max(1, failing.count), new=new)

    def _store(
        self, server: Server, seat: Seat, target: Target, record: Record, remaining: float, next_due: float
    ) -> Taken | None:
        token = record.token
        clock = token.obtained.wall if server.offset is None else token.obtained.boot + server.offset
        entry = TokenEntry(record, clock, max(0.0, next_due - token.obtained.boot))
        with self._sealing(server, target):
            sealed = self._vault.seal_token(target, seat.names, entry)
        newer = server.link.store.store(seat.names, record.fence, sealed, max(1.0, remaining))
        seat.seen = max(seat.seen, record.fence)
        if newer is None:
            seat.dealt = record.fence
            server.stored += 1
            return None
        self._check(server, newer)
        seat.dealt, seat.seen = newer.fence, max(seat.seen, newer.fence)
        return self._open(server, seat, target, newer)

    def _end(self, target: Target, end: Callable[[Server], None]) -> None:
        try:
            server, _ = self._at(target)
            if server.link.usable():
                end(server)
        except (ShareUnavailable, _Unusable):
            pass  # the lock ends with its lease

    def _open(self, server: Server, seat: Seat, target: Target, stored: Stored) -> Taken | None:
        """The token in an entry. None if it cannot be used: it is passed over from now on."""
        with self._sealing(server, target):
            entry = self._vault.open_token(target, seat.names, seat.client_id, stored)
        if entry is None:
            seat.unreadable = stored.fence
            server.note(
                "entry",
                f"{target.full_name}: the stored token cannot be opened: another key or another version sealed it, or "
                "it was altered; give all daemons of the fleet the same share.key or client secret",
            )
            return None
        now = self._clock.now()
        record = replace(entry.at(stored.clock, now), fence=stored.fence)
        server.taken += 1
        seat.busy_since = None
        return Taken(record, record.token.obtained.boot + entry.next_due)

    def _check(self, server: Server, stored: Stored) -> None:
        if not 0 < stored.fence <= GREATEST_FENCE:
            server.note("fence", f"the server named a fencing number out of range; {_TRUST}")
            raise _Unusable
        self._set_clock(server, stored.clock)

    def _check_granted(self, server: Server, seat: Seat, granted: Granted) -> None:
        if not policy.credible(granted.fence, seat.seen):
            server.note("fence", f"the server gave a fencing number out of order; {_TRUST}")
            raise _Unusable

    def _set_clock(self, server: Server, clock: float) -> None:
        if not isfinite(clock):
            server.note("clock", f"the server named no time; {_TRUST}")
            raise _Unusable
        server.offset = clock - self._clock.now().boot


def _digest(sealed: bytes) -> bytes:
    return hashlib.sha256(sealed).digest()[:12]
