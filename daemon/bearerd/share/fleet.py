"""The fleet of each client that shares: its servers, and the steps of a target's turn with them.

No method raises if the server, a key or an entry cannot be used: the answer then says how to go on, and the share's
view has the error. Call the methods about a target from its turn only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from math import inf

from bearerd.clock import Clock
from bearerd.errors import unexpected
from bearerd.grant.outcome import Failure
from bearerd.model import Target
from bearerd.publish.record import Record
from bearerd.share import policy
from bearerd.share.answers import Alone, Claimed, Delayed, Lock, Taken, Wanted
from bearerd.share.entries import Entries, Unusable
from bearerd.share.names import names_of
from bearerd.share.sealer import Sealer
from bearerd.share.server import Connect, EntryState, Server, Wake
from bearerd.share.types import ShareUnavailable, ShareView
from bearerd.terms import Redis, WhenUnavailable


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
        self._sealer = Sealer(environ, lambda: clock.now().boot)
        self._servers: dict[Redis, Server] = {}

    # -- the config ------------------------------------------------------------------------------

    def apply(self, targets: Iterable[Target]) -> None:
        """Connect to the servers of these targets, and to no others."""
        clients: dict[Redis, dict[str, WhenUnavailable]] = {}
        for target in targets:
            if (share := target.client.share) is not None:
                clients.setdefault(share.redis, {})[target.client.name] = share.when_unavailable
        before = self._servers
        self._servers = {redis: before.get(redis) or self._server_of(redis) for redis in clients}
        for name in {name for names in clients.values() for name in names}:
            self._sealer.forget(name)
        for redis, server in self._servers.items():
            server.clients, server.policies = tuple(clients[redis]), frozenset(clients[redis].values())
            if redis in before:
                server.look_again()
            else:
                server.link.start()
        for redis, server in before.items():
            if redis not in self._servers:
                server.link.stop()

    def credentials_changed(self, client: str) -> None:
        """Read the keys of this client again, and its entries at the next turns of its targets."""
        self._sealer.forget(client)
        for server in self._servers.values():
            server.look_again(client)

    def stop(self) -> None:
        """Close all connections."""
        for server in self._servers.values():
            server.link.stop()

    def views(self) -> tuple[ShareView, ...]:
        """The servers, for status and metrics."""
        return tuple(server.view() for server in self._servers.values())

    # -- one target, in its turn -----------------------------------------------------------------

    def look(self, target: Target, have: int, held: Callable[[], tuple[Record, float] | None]) -> Taken | None:
        """Take the stored token if it is newer than the held one with the fence `have`; costs nothing if none can be.

        `held` returns the held token and for how long it is valid. It is stored if the server lost it.
        """
        with suppress(Unusable):
            entries = self._entries(target)
            link, state = entries.server.link, entries.state
            fresh = link.fresh()
            if not link.usable() or (fresh and not state.look):
                return None
            state.look = False
            try:
                with _contained(entries.server):
                    return entries.look(have, held)
            except ShareUnavailable:
                state.look = True
        return None

    def claim(self, target: Target, wanted: Wanted) -> Claimed:
        """Claim the next grant of the fleet. A `Lock` must end with `store`, `keep`, `fail` or `give_back`."""
        state: EntryState | None = None
        with suppress(ShareUnavailable, Unusable):
            entries = self._entries(target)
            state = entries.state
            state.waiting, state.held = True, False
            if entries.server.link.usable():
                if (wait := self._gathering(entries, wanted)) > 0:
                    state.held = True
                    return Delayed("share_unavailable", wait)
                claimed = entries.claim(wanted)
                state.waiting = isinstance(claimed, Delayed)
                return claimed
        share = target.client.share
        if share is None or policy.goes_alone(share.when_unavailable, wanted.remaining, last=wanted.last):
            return Alone()
        if state is not None:
            state.held = True
        return Delayed("share_unavailable", inf)

    def own_fence(self, target: Target, have: int, wall: float) -> int:
        """The fence of a token that this daemon obtained by itself at this time (wall clock)."""
        try:
            entries = self._entries(target)
        except Unusable:
            return policy.own_fence(have, wall, self._dice())
        state, offset = entries.state, entries.server.offset
        if offset is not None:  # by the server's clock, so that the newest of two such tokens is known
            now = self._clock.now()
            wall += offset + now.boot - now.wall
        state.seen = policy.own_fence(max(state.seen, have), wall, self._dice())
        state.look = True  # it is stored when that is possible
        return state.seen

    def store(self, target: Target, record: Record, remaining: float, *, next_due: float = 0.0) -> Taken | None:
        """Store a token, under the lock or without one. Returns the newer one that the fleet has, if there is one.

        `next_due`: when (boot clock) the provider is asked about it next, if it returned the same token again.
        """
        with suppress(Unusable):
            entries = self._entries(target)
            if entries.server.link.usable():
                with suppress(ShareUnavailable), _contained(entries.server):
                    return entries.store(record, remaining, next_due)
            entries.state.look = True  # it is stored later
        return None

    def keep(self, target: Target, lock: Lock, wait: float) -> None:
        """The provider returned the token that the fleet has; it is asked again after `wait` seconds."""
        self._end(target, lambda entries: entries.server.link.store.keep(lock.names, lock.fence, max(0.0, wait)))

    def fail(
        self, target: Target, lock: Lock, failure: Failure, wait: float, *, whole_client: bool, refused: bool
    ) -> None:
        """Report a failure to the fleet, which then waits. `refused`: whether the provider may count it."""
        self._end(target, lambda entries: entries.fail(lock, failure, wait, whole_client=whole_client, refused=refused))

    def give_back(self, target: Target, lock: Lock) -> None:
        """Free the lock: nothing was sent."""
        self._end(target, lambda entries: entries.server.link.store.give_back(lock.names, lock.fence))

    def pass_over(self, target: Target, fence: int) -> None:
        """Note that a token that was taken cannot be used: by this machine's clocks it has expired."""
        with suppress(Unusable):
            state = self._entries(target).state
            state.unreadable = max(state.unreadable, fence)

    def clocks_differ(self, target: Target, seconds: float) -> None:
        """Note how far this machine's clock is from the server's, or from that of the daemon that stored a token."""
        share = target.client.share
        server = self._servers.get(share.redis) if share is not None else None
        if server is not None:
            server.note(
                "clock",
                f"this machine's clock differs by {seconds:.0f} s from that of the server or of another daemon; "
                "synchronize them",
            )

    def forget(self, target: Target) -> None:
        """Remove a target that is no longer wanted, or whose share changed."""
        for server in self._servers.values():
            server.drop(target.full_name)

    # -- inside ----------------------------------------------------------------------------------

    def _server_of(self, redis: Redis) -> Server:
        return Server(redis, self._connect, self._wake, lambda: self._clock.now().boot)

    def _entries(self, target: Target) -> Entries:
        """The entries of a target. Raises Unusable."""
        client = target.client
        server = self._servers.get(client.share.redis) if client.share is not None else None
        if server is None:  # a new config is being applied
            raise Unusable
        client_id = client.client_id if isinstance(client.client_id, str) else self._client_id(target)
        if client_id is None:
            server.note("client_id", f"{client.client_id}: the client id of {client.name} cannot be read; correct it")
            raise Unusable
        state = server.state(target, client_id, lambda: names_of(target, client_id))
        return Entries(server, state, target, self._sealer, self._clock)

    def _gathering(self, entries: Entries, wanted: Wanted) -> float:
        """Seconds until all daemons are connected again. Until then, a new token would end those of the others."""
        share = entries.target.client.share
        if share is None or policy.goes_alone(share.when_unavailable, wanted.remaining, last=wanted.last):
            return 0.0
        return entries.server.back_at + policy.GATHERING - self._clock.now().boot

    def _end(self, target: Target, end: Callable[[Entries], None]) -> None:
        # If it fails, the lock ends with its lease.
        with suppress(ShareUnavailable, Unusable):
            entries = self._entries(target)
            if entries.server.link.usable():
                with _contained(entries.server):
                    end(entries)


@contextmanager
def _contained(server: Server) -> Iterator[None]:
    """Note an unexpected error, and raise Unusable for it: a token that was just issued must not be lost."""
    try:
        yield
    except (ShareUnavailable, Unusable):
        raise
    except Exception as error:  # noqa: BLE001 - as above
        server.note("bug", unexpected(error))
        raise Unusable from None
