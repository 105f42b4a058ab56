"""A daemon's link to the store of its fleet in simulated time.

A command that is sent arrives even if its daemon is stopped or killed meanwhile. Its reply waits for the daemon.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import floor, inf
from typing import Final, Literal, TypeVar

from bearerd.share.link import LONGEST, POLL, backoff
from bearerd.share.parts import LinkView, Listener
from bearerd.share.types import Answer, Claim, Names, ShareUnavailable, Store, Stored
from simulation.fleet_daemon import FleetDaemon
from simulation.fleet_store import StoreServer
from simulation.kernel import Killed
from support.share_model import ModelStore

_STEP: Final = 0.01
"""Seconds between two looks at whether the first connection is made."""
_REFUSED: Final = 0.001
"""Seconds until a connection is refused."""
_NOTICED: Final = 0.05
"""Seconds within which the thread of a link that was stopped runs again."""

T = TypeVar("T")


class SimulatedLink:
    """A daemon's connection, as share/link: subscribed, polling, and connecting again with backoff.

    A poll that would see nothing new is left out: only those happen at which something may have changed unannounced.
    """

    def __init__(self, server: StoreServer, daemon: FleetDaemon, number: int, listener: Listener) -> None:
        self.server = server
        self.daemon = daemon
        self.number = number
        self.cut_until = -inf
        """Until when the host cannot reach the server."""
        self.since = daemon.clock.now().boot
        self._kernel = server.kernel
        self._listener = listener
        self.state: Literal["starting", "up", "down"] = "starting"
        self.store: Store = _Commands(self)
        self._stopped = False
        self._failures, self._blind = 0, True
        self._opened = inf
        """When the last connection that worked was made."""
        self._connected = -inf
        self._blocked = inf
        """From when on no poll gets through, until the next one that does."""
        self._poll_due = inf
        self.errors = 0
        self._error, self._error_at = "", 0.0
        self.is_up: Callable[[], None] = lambda: None
        """FleetFailure when the link is up."""

    # -- as share/link ---------------------------------------------------------------------------

    def start(self) -> None:
        """Connect."""
        self.server.links.append(self)
        self._kernel.at(self._kernel.now, self._connect)

    def stop(self) -> None:
        """Never connect again."""
        self._stopped = True
        if self in self.server.links:
            self.server.links.remove(self)

    def usable(self) -> bool:
        """Whether it is not known to be down."""
        return self.state != "down"

    def fresh(self) -> bool:
        """Whether it heard from the server of late."""
        now, since = self._kernel.now, self._connected
        if self.state != "up":
            return False
        last = since + floor((min(now, self._blocked) - since) / POLL) * POLL
        return now - last <= POLL + self.server.store.timeout

    def view(self) -> LinkView:
        """Its state."""
        return LinkView(self.state, self.since, self._error, self._error_at if self._error else None, self.errors)

    # -- for the world ---------------------------------------------------------------------------

    def reachable(self) -> bool:
        """Whether commands of this host reach the server, and it answers."""
        return self._kernel.now >= self.cut_until and self.server.state() == "well"

    @property
    def session(self) -> float:
        """When the present connection was made."""
        return self._connected

    @property
    def blind(self) -> bool:
        """Whether its daemon never heard of the server, and so of its clock."""
        return self._blind

    def connected(self) -> float:
        """Since when announcements reach it; infinity if they do not."""
        return self._connected if self.state == "up" and self.reachable() else inf

    def cut(self, seconds: float) -> None:
        """The network between this host and the server is gone for a while."""
        self.cut_until = max(self.cut_until, self._kernel.now + seconds)
        self.poll_at(self._kernel.now)

    def stopped(self, until: float) -> None:
        """The process is stopped until then."""
        self._blocked = min(self._blocked, self._kernel.now)
        self._poll_due = inf
        self._plan_poll(until + _NOTICED * self.server.dice.random())

    def disconnected(self) -> None:
        """The server closed the connections."""
        if self.state == "up":
            self._kernel.at(self._awake(), lambda: self.failed("connection closed by the server"))

    def announced(self, names: Names) -> None:
        """The server publishes these names. A short cut of the network only delays them."""
        if self.state != "up" or self._kernel.now < self._connected:
            return
        session = self._connected
        at = max(self._kernel.now + self.server.latency(), self.cut_until)

        def deliver() -> None:
            if self._connected == session and self.state == "up" and self._alive():
                if self._kernel.now < self._awake():
                    self._kernel.at(self._awake(), deliver)
                    return
                self._listener.changed((names.token, names.client))

        self._kernel.at(at, self._heard(deliver))

    def failed(self, error: str) -> None:
        """A command failed: the link is down."""
        self.errors += 1
        self._error, self._error_at = error, self.daemon.clock.now().boot
        if self.state == "down" or not self._alive():
            return
        self.state, self.since = "down", self._error_at
        self._connected = -inf
        self._again()
        self._heard(self._listener.lost)()

    def poll_at(self, moment: float) -> None:
        """Let the first poll after that moment happen."""
        if self.state != "up":
            return
        self._blocked = min(self._blocked, moment)
        first = self._connected + (floor((moment - self._connected) / POLL) + 1) * POLL
        self._plan_poll(first)

    # -- inside ----------------------------------------------------------------------------------

    def _alive(self) -> bool:
        return self.daemon.alive_ and not self._stopped

    def _awake(self) -> float:
        """When the process runs (again)."""
        return max(self._kernel.now, self.daemon.stopped_until)

    def _heard(self, event: Callable[[], None]) -> Callable[[], None]:
        """An event in which the daemon's code runs."""
        return self.daemon.within(event)

    def _again(self) -> None:
        # A server that accepts connections but fails operations is not up for long.
        self._failures = 1 if self._kernel.now - self._opened >= LONGEST else self._failures + 1
        self._opened = inf
        self._kernel.at(self._kernel.now + backoff(self._failures, self.server.dice.random()), self._connect)

    def _connect(self) -> None:
        if not self._alive() or self.state == "up":
            return
        if self._kernel.now < self._awake():
            self._kernel.at(self._awake(), self._connect)
            return
        if self.reachable():
            self._kernel.at(self._kernel.now + 4 * self.server.latency(), self._up)
        else:
            refused = self._kernel.now >= self.cut_until and self.server.state() == "refuses"
            self._kernel.at(self._kernel.now + (_REFUSED if refused else self.server.store.timeout), self._not_up)

    def _not_up(self) -> None:
        if not self._alive() or self.state == "up":
            return
        before, self.state = self.state, "down"
        self.errors += 1
        self._error, self._error_at = "no connection", self.daemon.clock.now().boot
        self._again()
        if before == "starting":
            self.since = self._error_at
            self._heard(self._listener.lost)()

    def _up(self) -> None:
        if not self._alive() or self.state == "up":
            return
        if not self.reachable():
            self._not_up()
            return
        self.state, self.since = "up", self.daemon.clock.now().boot
        self._connected = self._opened = self._kernel.now
        self._blocked, self._poll_due, self._blind = inf, inf, False
        self._heard(self._listener.restored)()
        self.is_up()

    def _plan_poll(self, at: float) -> None:
        if at < self._poll_due:
            self._poll_due = at
            self._kernel.at(at, self._poll)

    def _poll(self) -> None:
        if self._kernel.now < self._poll_due or self.state != "up" or not self._alive():
            return
        if self._kernel.now < self._awake():
            self._poll_due = inf
            self._plan_poll(self._awake() + _NOTICED * self.server.dice.random())
            return
        self._poll_due = inf
        session = self._connected
        if not self.reachable():

            def late() -> None:
                if self._connected == session:
                    self.failed("no reply in time")

            self._kernel.at(self._kernel.now + self.server.store.timeout, late)
            return

        def reply() -> None:
            if self._connected != session or self.state != "up" or not self._alive():
                return
            self._blocked = inf
            known = self._listener.known()
            found = self.server.model.fences(tuple(known))
            differing = [name for (name, have), fence in zip(known.items(), found, strict=True) if have != fence]
            if differing:
                self._listener.changed(differing)

        self._kernel.at(self._kernel.now + 2 * self.server.latency(), self._heard(reply))


class _Commands:
    """The commands of a daemon. Each takes its time, in the thread that calls it."""

    def __init__(self, link: SimulatedLink) -> None:
        self._link = link

    def claim(self, names: Names, claim: Claim) -> Answer:
        """Take the lock of a target, or return why not."""
        link = self._link

        def apply(model: ModelStore) -> Answer:
            clock = model.clock()
            first = model.last.get(names.token, (0, -inf))[1] <= clock
            answer = model.claim(names, claim)
            # One that is last for its daemon, but not for the fleet, is granted as any other.
            link.server.answered(link, names, answer, replace(claim, last=claim.last and first))
            return answer

        return self._call(apply)

    def store(self, names: Names, fence: int, sealed: bytes, ttl: float) -> Stored | None:
        """Keep a new token."""
        link = self._link

        def apply(model: ModelStore) -> Stored | None:
            before = model.tokens.get(names.token)
            newer = model.store(names, fence, sealed, ttl)
            if model.tokens.get(names.token) is not before:
                link.server.stored(names, fence)
            return newer

        return self._call(apply)

    def keep(self, names: Names, fence: int, wait: float) -> None:
        """The provider returned the same token."""
        link = self._link

        def apply(model: ModelStore) -> None:
            model.keep(names, fence, wait)
            link.server.kept(names, wait)

        self._call(apply)

    def fail(self, names: Names, fence: int, sealed: bytes, wait: float, *, whole_client: bool, refused: bool) -> None:
        """Note a failure."""
        link = self._link

        def apply(model: ModelStore) -> None:
            model.fail(names, fence, sealed, wait, whole_client=whole_client, refused=refused)
            if refused and whole_client:
                link.server.refused(names)

        self._call(apply)

    def give_back(self, names: Names, fence: int) -> None:
        """Nothing was sent."""
        self._call(lambda model: model.give_back(names, fence))

    def read(self, names: Names) -> Stored:
        """The token that is stored."""
        return self._call(lambda model: model.read(names))

    def _call(self, command: Callable[[ModelStore], T]) -> T:
        link, server, kernel = self._link, self._link.server, self._link.server.kernel
        if not link.daemon.alive_:
            raise Killed  # in a `finally`, which a killed process does not come to
        timeout = server.store.timeout
        self._wait_until_settled()
        sent, session, state = kernel.now, link.session, server.state()
        if sent < link.cut_until:
            state = "silent"
        if state == "refuses":
            kernel.sleep(_REFUSED, link.daemon)
            raise self._failed(session, "connection refused")
        if state == "silent":
            kernel.sleep(timeout, link.daemon)
            raise self._failed(session, "no reply in time")
        replies: list[T] = []
        # Under load it does what it is asked, but after the daemon stopped waiting for it.
        there = server.latency() if state == "well" else timeout * (0.5 + server.dice.random())
        back = server.latency() if state == "well" else timeout

        def arrives() -> None:
            if server.state() in {"well", "slow"} and kernel.now >= link.cut_until:
                replies.append(server.apply(command))

        kernel.at(sent + there, arrives)
        kernel.sleep(min(there + back, timeout), link.daemon)
        if replies and state == "well" and server.state() == "well" and sent + there + back >= link.cut_until:
            return replies[0]
        kernel.sleep(max(0.0, sent + timeout - kernel.now), link.daemon)
        raise self._failed(session, "no reply in time")

    def _wait_until_settled(self) -> None:
        """Wait for the first connection, but not longer than the timeout."""
        link, kernel = self._link, self._link.server.kernel
        until = kernel.now + link.server.store.timeout
        while link.state == "starting" and kernel.now < until:
            kernel.sleep(_STEP, link.daemon)
        if link.state != "up":
            raise ShareUnavailable("no connection")

    def _failed(self, session: float, error: str) -> ShareUnavailable:
        if session == self._link.session:  # else it was opened again meanwhile
            self._link.failed(error)
        return ShareUnavailable(error)
