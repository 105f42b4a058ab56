"""The invariants of a fleet, (h) to (l), as `docs/architecture.md` lists them, and what is excused from them."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final

from bearerd.lifecycle import policy
from bearerd.model import RefreshBefore, Target
from bearerd.share.link import LONGEST, POLL
from bearerd.share.policy import GATHERING
from bearerd.share.types import NEVER, Answer, Claim, Granted, Names, Stored
from simulation.checks import INSTANT, Checks, Violation
from simulation.fleet_store import Connection
from simulation.server import Arrival, Known

if TYPE_CHECKING:
    from simulation.fleet import Fleet, Member

FLEET_INVARIANTS: Final = {
    "h": "a fleet makes one grant in each lifetime; while well, only with the lock",
    "i": "no two tokens, and no two holders of a lock, have the same fence",
    "j": "no file, and no store that is well, goes back to a token with a smaller fence",
    "k": "every daemon has the fleet's token within a second",
    "l": "refused_limit and rate limits are those of the fleet",
}
WITHIN: Final = 1.0
"""Seconds within which a daemon has a new token."""
LEASE_BESIDE_TIMEOUT: Final = 2.0
"""Seconds by which the lease of a lock is longer than the timeout of a grant."""
RECONNECTS: Final = LONGEST + POLL + GATHERING
"""Seconds until a link connects again, after the longest backoff and an attempt that failed, and the others as well."""
LAST_BESIDE_EACH_OTHER: Final = 14.0
"""Seconds: last attempts are made within a span of 15 s, and only one for each token."""
TRACED: Final = 400
_ROUNDED: Final = 2.0
"""Seconds by which a token may be due earlier: lifetimes are whole seconds, and count from before the request."""


@dataclass(frozen=True)
class Disturbance:
    """A span in which a fleet, or one of its hosts, may do what it may not do while all is well."""

    start: float
    end: float
    what: str
    host: int | None = None
    of: str = "hkl"
    """The invariants that need not hold; "s" for those in which the store loses data, "t" for its clock."""


class MemberChecks(Checks):
    """What must hold for each daemon, as if it were alone; what it does is seen by the fleet's checks as well."""

    def __init__(self, member: Member) -> None:
        super().__init__(member)
        self._member = member

    def trace(self, target: str, text: str) -> None:
        """Something happened that concerns a target."""
        self._member.fleet.checks.trace(target, f"host {self._member.number}: {text}")

    def changed(self, path: str, content: bytes | None) -> None:
        """A file was replaced or removed."""
        super().changed(path, content)
        self._member.fleet.checks.changed(self._member, path, content)

    def look(self, path: str) -> None:
        """What a reader finds in a file."""
        target = self._member.target_of(path)
        name = target.full_name if target is not None else ""
        # Of tokens that were obtained by such daemons nobody knows which ended the others: their clocks differ.
        ended = (name, self._member.fences.get(name, NEVER)) in self._member.fleet.checks.blind
        if not (ended and self._member.ends_old(name)):
            super().look(path)

    def alarm(self, name: str, text: str) -> None:
        """The daemon says ERROR. One whose clock is far from those of others believes that tokens end earlier."""
        if not self._member.fleet.skew():
            super().alarm(name, text)

    def granted(self, target: Target) -> None:
        """A request is about to be sent."""
        self._member.fleet.checks.asks(self._member, target)
        super().granted(target)


class FleetChecks:
    """What has been seen of a fleet, and what must hold."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.made: Counter[str] = Counter()
        self.beyond: Counter[str] = Counter()
        """Grants beyond one in each lifetime, by their excuse."""
        self.disturbances: list[Disturbance] = []
        self.traces: defaultdict[str, deque[tuple[float, str]]] = defaultdict(lambda: deque(maxlen=TRACED))
        self.known: dict[str, dict[int, Known]] = defaultdict(dict)
        """By target and fence: the token."""
        self.blind: set[tuple[str, int]] = set()
        """By target and fence: tokens that were obtained alone, by daemons that never heard of the store's clock."""
        self.late_locks = 0.0
        """Seconds by which tokens may be taken for older: a daemon that was stopped read the store's clock late."""
        self.names: dict[str, Names] = {}
        """By target."""
        self._holders: dict[tuple[str, int], int] = {}
        """By the store's name of the token, and fence: the host that got the lock."""
        self._latest: dict[str, Known] = {}
        """By target: the token that was issued last."""
        self._asking: defaultdict[str, dict[int, float]] = defaultdict(dict)
        """By target and host: since when it asks the provider."""
        self._asked: dict[str, float] = {}
        """By target: when the last request was sent."""
        self._last: dict[str, float] = {}
        """By target: when the last attempt before an expiry was sent."""
        self._early: dict[tuple[int, str], str] = {}
        """By host and target: why it asked for another token too early, until there is one."""
        self._stored: dict[str, int] = {}
        """By target: the fence of the token that was stored last."""
        self._locks: dict[tuple[int, str], tuple[int, Claim]] = {}
        """By host and target: fence and claim of its last lock."""
        self._arrivals: defaultdict[str, deque[float]] = defaultdict(deque)
        self._refused: defaultdict[str, deque[float]] = defaultdict(deque)
        self._refusing: dict[str, float] = {}
        """By client: since when its fleet knows that it is refused."""

    def trace(self, target: str, text: str) -> None:
        """Something happened that concerns a target."""
        self.traces[target].append((self._fleet.kernel.now, text))

    def disturb(self, what: str, seconds: float, host: int | None = None, of: str = "hkl") -> None:
        """Something begins that is no fault of the fleet, and whose effects last so long."""
        now = self._fleet.kernel.now
        self.disturbances.append(Disturbance(now, now + seconds, what, host, of))

    def excuse(self, of: str, since: float, host: int | None = None) -> str:
        """What happened since a moment that excuses a host, or the whole fleet; empty if all was well."""
        now = self._fleet.kernel.now
        for each in self.disturbances:
            theirs = host is None or each.host in {None, host}
            if theirs and of in each.of and each.start <= now and since <= each.end:
                return each.what
        return ""

    # -- (h): grants -----------------------------------------------------------------------------

    def asks(self, member: Member, target: Target) -> None:
        """A daemon is about to send a request for a token."""
        name, now, number = target.full_name, self._fleet.kernel.now, member.number
        self.made["h"] += 1
        fence, claim = self._locks.get((number, name), (NEVER, Claim()))
        holds = self._holds(name, fence)
        self.trace(name, f"host {number}: asks the provider, {f'with lock {fence}' if holds else 'without a lock'}")
        link = member.link
        # Hosts whose clocks are far apart do not agree when a token ends, and take each other's locks for lost ones.
        if link.state == "up" and not holds and not self._fleet.skew() and not self.excuse("h", now, number):
            raise Violation("h", f"{name}: host {number} asks without the lock, and the store is well", name)
        if link.state == "down" and self._fleet.world.store.when_unavailable == "wait":
            self._may_go_alone(member, name)
        excuse = self.excuse("h", now) or self._fleet.skew()
        for other, since in self._asking[name].items():
            lease = self._locks.get((other, name), (NEVER, Claim()))[1].lease
            # A lease may be shorter than the request takes: it ends before the token does.
            if other != number and now < since + lease and not excuse and not self.excuse("h", since):
                raise Violation("h", f"{name}: hosts {other} and {number} ask at a time", name)
        if claim.last and holds:
            before, self._last[name] = self._last.get(name, -inf), now
            if now - before < LAST_BESIDE_EACH_OTHER and not self.excuse("h", before):
                raise Violation("h", f"{name}: two last attempts of the fleet within {now - before:.1f} s", name)
        last = self._asked.get(name, -inf)
        # A host whose clock is far ahead takes a new token for an old one, and asks at once.
        soon = now - last < policy.LEAST_BETWEEN_ATTEMPTS - INSTANT and not self._fleet.skew()
        # So does one whose credentials changed.
        if soon and not claim.last and claim.changed is None and not self.excuse("h", last):
            raise Violation("h", f"{name}: two attempts of the fleet within {now - last:.2f} s", name)
        self._asked[name] = now
        self._asking[name][number] = now
        self._check_early(member, name)

    def answered(self, number: int, name: str) -> None:
        """A daemon has its reply, or is gone."""
        self._asking[name].pop(number, None)

    def _holds(self, name: str, fence: int) -> bool:
        names = self.names.get(name)
        lock = self._fleet.store.model.locks.get(names.token) if names is not None else None
        return lock is not None and lock.fence == fence and lock.until > self._fleet.store.clock()

    def _may_go_alone(self, member: Member, name: str) -> None:
        standing = next(each for each in member.daemon.statuses() if each.name == name)
        left = (standing.expires or -inf) - member.clock.now().boot
        if left > policy.EARLIEST_LAST_ATTEMPT + INSTANT and not member.asked_for(name):
            raise Violation("h", f"{name}: host {member.number} does not wait, with {left:.0f} s left", name)

    def _check_early(self, member: Member, name: str) -> None:
        """Ask only when the fleet's token is due: the one in the store, or else the last one."""
        now, kept = self._fleet.kernel.now, member.kept[name]
        names = self.names.get(name)
        stored = self._fleet.store.model.tokens.get(names.token) if names is not None else None
        token = self.known[name].get(stored[0]) if stored is not None else None
        token = token or self._latest.get(name)
        if token is None or kept.habit not in {"fresh", "jwt"} or token.ends <= now or member.asked_for(name):
            return
        lead = policy.lead(kept.lifetime, RefreshBefore(share=kept.share), 0.0)
        due = token.issued + kept.lifetime - lead - 0.1 * lead - _ROUNDED - self._fleet.skew() - self.late_locks
        self.made["h"] += 1
        if now >= due:
            return
        excuse = self._early.get((member.number, name)) or self.excuse("h", now)
        if not excuse:
            text = f"{name}: host {member.number} asks for another token {due - now:.1f} s before it is due"
            raise Violation("h", text, name)
        self.beyond[excuse] += 1
        self._early[member.number, name] = excuse  # if it fails it is tried again

    def issued(self, token: Known) -> None:
        """A provider issued a token."""
        self._latest[token.target] = token

    # -- (i), (j): fences ------------------------------------------------------------------------

    def claimed(self, link: Connection, names: Names, granted: Answer, claim: Claim) -> None:
        """The store answers a claim."""
        name = self._fleet.target_of(names)
        if not isinstance(granted, Granted):
            wait = "" if isinstance(granted, Stored) else f", {granted.wait:.3f} s"
            self.trace(name, f"host {link.number}: claims in vain: {type(granted).__name__}{wait}")
            return
        self.made["i"] += 1
        self.trace(name, f"host {link.number}: gets lock {granted.fence}")
        if (names.token, granted.fence) in self._holders:
            other = self._holders[names.token, granted.fence]
            raise Violation("i", f"{name}: hosts {other} and {link.number} hold fence {granted.fence}", name)
        self._holders[names.token, granted.fence] = link.number
        self._locks[link.number, name] = granted.fence, claim
        self._fleet.members[link.number].lock_given()

    def changed(self, member: Member, path: str, content: bytes | None) -> None:
        """A file was replaced or removed."""
        target = member.target_of(path)
        if content is None or target is None:
            return
        name = target.full_name
        fence = member.fence(name)
        token = member.known(content.decode())
        before = member.fences.get(name, NEVER)
        self.trace(name, f"host {member.number}: has fence {fence}")
        if member.waits(name):
            return  # the fence is that of a token which is not in the file yet
        self.made["i"] += 1
        if fence not in self.known[name] and member.link.blind:
            self.blind.add((name, fence))
        other = self.known[name].setdefault(fence, token)
        if other is not token:
            raise Violation("i", f"{name}: {token.text} and {other.text} have fence {fence}", name)
        self.made["j"] += 1
        if fence < before:
            raise Violation("j", f"{name}: host {member.number} goes back from fence {before} to {fence}", name)
        member.fences[name] = fence

    def stored(self, name: str, fence: int) -> None:
        """The store has a token."""
        self.trace(name, f"the store has fence {fence}")
        self._refusing.pop(name.partition("/")[0], None)
        now, token = self._fleet.kernel.now, self.known[name].get(fence)
        before = self._stored.get(name, NEVER)
        last = self.known[name].get(before)
        self.made["j"] += 1
        if fence < before and last is not None and last.ends > now and not self.excuse("s", last.issued):
            raise Violation("j", f"{name}: the store goes back from fence {before} to {fence}", name)
        # Of a token that its provider ended earlier nobody knows.
        ended = now - max(token.ends, token.issued + self._fleet.lifetimes[name]) if token is not None else 0.0
        if ended > self._fleet.settles() + self._fleet.skew():
            raise Violation("j", f"{name}: a token that ended {ended:.0f} s ago is stored", name)
        for number, member in self._fleet.members.items():
            self._early.pop((number, name), None)
            if now > member.requested.get(name, inf) + self._fleet.lease():  # else of an attempt before the request
                del member.requested[name]
        self._stored[name] = fence
        self._last.pop(name, None)

    # -- (k): others have it ---------------------------------------------------------------------

    def expect(self, member: Member, name: str) -> None:
        """Within a second this daemon has the token that the store has now."""
        names = self.names.get(name)
        stored = self._fleet.store.model.tokens.get(names.token) if names is not None else None
        if stored is None:
            return
        since, fence, left = self._fleet.kernel.now, stored[0], stored[2] - self._fleet.store.clock()

        def look() -> None:
            # A host whose clock is far ahead takes it for an expired one.
            expired = left < WITHIN + self._fleet.skew()
            asks = member.number in self._asking[name]  # it has the token after its own attempt
            if not expired and not asks and member.undisturbed(since) and not self.excuse("k", since, member.number):
                self.made["k"] += 1
                if member.fence(name) < fence:
                    text = f"{name}: host {member.number} does not have fence {fence} within a second"
                    raise Violation("k", text, name)

        self._fleet.kernel.at(since + WITHIN, look)

    # -- (l): limits -----------------------------------------------------------------------------

    def arrived(self, arrival: Arrival) -> None:
        """A provider saw a request."""
        answer = "refused" if arrival.refused else "not refused"
        self.trace(arrival.target, f"host {arrival.sender}: request arrives, {answer}")
        now, client = arrival.time, arrival.client
        limit = self._fleet.limits[client]
        if limit is not None:
            self._count(self._arrivals[client], now, limit, f"{client}: {{}} requests in {limit[1]:.0f} s", arrival)
        known = self._refusing.get(client)
        if arrival.refused and known is not None and arrival.sent > known:
            count, window = self._fleet.refused_limit
            self._count(
                self._refused[client], now, (count, window), f"{client}: {{}} refused in {window:.0f} s", arrival
            )

    def _count(self, moments: deque[float], now: float, limit: tuple[int, float], text: str, arrival: Arrival) -> None:
        count, window = limit
        moments.append(now)
        while moments[0] <= now - window:
            moments.popleft()
        self.made["l"] += 1
        if len(moments) > count and not self.excuse("l", now - window - LEASE_BESIDE_TIMEOUT):
            raise Violation("l", text.format(len(moments)), arrival.target)

    def refused(self, names: Names) -> None:
        """The fleet knows that a client is refused."""
        name = self._fleet.target_of(names)
        client = name.partition("/")[0]
        if client not in self._refusing:
            self._refusing[client] = self._fleet.kernel.now
            # The first of its kind counts, and those in flight with it do not.
            self._refused[client].append(self._fleet.kernel.now)

    def kept(self, names: Names, wait: float) -> None:
        """The provider returned a token again."""
        name = self._fleet.target_of(names)
        self.trace(name, f"the same token again: nobody asks for {wait:.3f} s")
        self._refusing.pop(name.partition("/")[0], None)
