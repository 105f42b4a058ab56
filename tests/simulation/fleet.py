"""A fleet: several hosts, each with a daemon, a disk and clocks of its own, that share clients through one store."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from math import inf
from random import Random
from typing import Final

from bearerd.log import LOGGER
from bearerd.model import Target
from bearerd.publish import record as records
from bearerd.publish.record import Record
from bearerd.share.link import POLL
from bearerd.share.names import names_of
from bearerd.share.parts import Link, Listener
from bearerd.share.types import NEVER, Names
from bearerd.terms import REFUSED_LIMIT, Redis, Reference, Share
from simulation.alone import Run
from simulation.checks import INSTANT, Violation
from simulation.daemon import Daemon
from simulation.describe import Event, Machine, World
from simulation.excuses import FILES, LOOK
from simulation.fleet_checks import LEASE_BESIDE_TIMEOUT, RECONNECTS, FleetChecks, MemberChecks
from simulation.fleet_daemon import FleetDaemon, running
from simulation.fleet_link import SimulatedLink
from simulation.fleet_store import StoreServer
from simulation.kernel import Kernel
from simulation.server import Arrival, AuthorizationServer, Known

_OF_STORE: Final = frozenset({"outage", "slow", "flush", "failover", "restore", "store_step", "mute"})
_KEY: Final = Reference("env", "share")
BESIDE_EXPIRY: Final = 10.0
"""Seconds for which a daemon waits for a lock that outlasts its token (share/policy)."""


class Member(Run):
    """One host of a fleet."""

    makes = FleetDaemon
    daemon: FleetDaemon
    link: SimulatedLink
    """Of the present daemon, or the last one."""

    def __init__(self, fleet: Fleet, machine: Machine) -> None:
        super().__init__(replace(fleet.world, machines=(), events=()), fleet.kernel, fleet.servers)
        self.fleet = fleet
        self.number = machine.number
        self.machine = machine
        self.checks: MemberChecks = MemberChecks(self)
        self.dice = Random(1000 * fleet.world.seed + machine.number)
        self.clock.step(machine.skew)
        self.fences: dict[str, int] = {}
        """By target: the fence of the token in its file."""
        self._cut_until = -inf
        self._stop_in_claim: Event | None = None
        """A stop that waits for a lock."""
        self.requested: dict[str, float] = {}
        """By target: when a user requested another token."""
        self.share = fleet.share
        self._environ["share"] = "the key that seals what is shared"
        self._down, self._up_at = True, machine.starts

    def begin(self) -> None:
        """Start when it is time."""
        self._excuse_faults()
        self.kernel.at(self._up_at, self._start)
        for kept in self.world.targets:
            self._read_later(kept)

    # -- for the checks --------------------------------------------------------------------------

    def fence(self, name: str) -> int:
        """The fence of the token that it has, by its record."""
        record = self._record(name)
        return NEVER if record is None else record.fence

    def waits(self, name: str) -> bool:
        """Whether the token that it has waits for its publication."""
        record = self._record(name)
        return record is not None and record.present is not None

    def _record(self, name: str) -> Record | None:
        content = self.disk.records.get(name)
        return records.load(content) if content is not None else None

    def asked_for(self, name: str) -> bool:
        """Whether a user requested another token, and there is none yet."""
        return name in self.requested

    def skew(self) -> float:
        """Seconds by which clocks of its fleet differ."""
        return self.fleet.skew(0.0)

    def grace(self, name: str) -> float:
        """Seconds for which a token may stay in its file after its end."""
        # A lock that lasts longer because the store's clock was set back is not waited for longer than this.
        stepped = self.fleet.checks.excuse("t", self.kernel.now)
        return super().grace(name) + (BESIDE_EXPIRY + self._way(name) if stepped else 0.0)

    def asked_otherwise(self, path: str) -> bool:
        """Whether the file may go back to a token that ends earlier: the latest one was lost with its store."""
        ends_old = self.ends_old(self.target_of_path(path).full_name)
        return super().asked_otherwise(path) or (ends_old and bool(self.fleet.checks.excuse("h", self.kernel.now)))

    def ends_old(self, name: str) -> bool:
        """Whether a new token ends the previous one."""
        return self.fleet.ends_old(self.kept[name].account)

    def expect(self) -> None:
        """Within a second it has all tokens that the store has now."""
        if not self._down:
            for name in self.kept:
                self.fleet.checks.expect(self, name)

    def target_of_path(self, path: str) -> Target:
        """Whose file it is."""
        return self._by_path[path]

    def undisturbed(self, since: float) -> bool:
        """Whether its daemon ran, awake and connected, since that moment."""
        return (
            not self._down
            and not self.deaf()
            and self._deaf_until <= since
            and self.daemon.alive_
            and self.started_at < since
            and self.link.connected() <= since
        )

    # -- the daemon ------------------------------------------------------------------------------

    def _prepare(self, daemon: Daemon) -> None:
        assert isinstance(daemon, FleetDaemon)
        daemon.number = self.number
        daemon.touched = partial(self.fleet.touched.add, self.number)
        daemon.connect = self._connected
        for target in daemon.config.targets:
            self.fleet.name(target, names_of(target, target.client.name))

    def _connected(self, listener: Listener) -> Link:
        """The link of a process that begins."""
        assert isinstance(self.daemon, FleetDaemon)
        self.link = SimulatedLink(self.fleet.store, self.daemon, self.number, listener)
        self.link.cut_until = self._cut_until
        self.link.is_up = self.expect
        return self.link

    def _performed(self, target: Target) -> None:
        super()._performed(target)
        self.fleet.checks.answered(self.number, target.full_name)
        self.fleet.checks.expect(self, target.full_name)

    def _way(self, name: str) -> float:
        return super()._way(name) + self.fleet.detour(name)

    def lock_given(self) -> None:
        """Its daemon is about to hear that it may ask."""
        if self._stop_in_claim is not None:
            event, self._stop_in_claim = replace(self._stop_in_claim, text=""), None
            self.fleet.checks.late_locks = self.fleet.lease()
            self.fleet.disturb(event, event.value, self.number)  # its lock outlasts it
            self.kernel.at(self.kernel.now, partial(self._do, event))

    def _do(self, event: Event) -> None:
        if event.deed == "stop" and event.text == "claim":
            self._stop_in_claim = event
        else:
            super()._do(event)

    def _asks(self) -> bool:
        """Whether it asks a provider, whose reply it does not have."""
        return sum(self.flying.values()) > 0

    # -- what happens to it ----------------------------------------------------------------------

    def _stop(self, event: Event) -> None:
        """SIGSTOP, and later SIGCONT."""
        until = self.kernel.now + event.value
        self._asleep_until, self._deaf_until = until, max(self._deaf_until, until)
        self.daemon.stop_process(until)
        self.link.stopped(until)
        self._pause(list(self.kept), event.value, "stopped")
        if self._asks():
            self.fleet.disturb(event, event.value, self.number)

        def continues() -> None:
            self.fleet.touched.add(self.number)
            self.expect()

        self.kernel.at(until + INSTANT / 2, continues)

    def _cut(self, event: Event) -> None:
        self._cut_until = max(self._cut_until, self.kernel.now + event.value)
        self.link.cut(event.value)
        self.fleet.disturb(event, event.value, self.number)

    def _suspend(self, event: Event) -> None:
        super()._suspend(event)
        self.daemon.stopped_until = self._asleep_until
        self.link.disconnected()
        if self._asks():
            self.fleet.disturb(event, self._deaf_until - self.kernel.now, self.number)

    def _step(self, event: Event) -> None:
        self.fleet.stepped()
        super()._step(event)
        self.fleet.disturb(event, LOOK, self.number)

    def _kill(self, event: Event) -> None:
        for name in self.kept:
            self.fleet.checks.answered(self.number, name)
        self.link.stop()
        if self._asks():
            self.fleet.disturb(event, 0.0, self.number)
        super()._kill(event)

    _restart = _kill

    def _fail_disk(self, event: Event) -> None:
        super()._fail_disk(event)
        self.fleet.checks.disturb("fail_disk", event.value + FILES, self.number, "k")

    def _refresh(self, event: Event) -> None:
        super()._refresh(event)
        self.requested.update(dict.fromkeys(self._concerned(event.of), self.kernel.now))

    def _rotate(self, event: Event) -> None:
        super()._rotate(event)
        self._other_secret(event)

    def _mistype(self, event: Event) -> None:
        super()._mistype(event)
        self._other_secret(event)

    def _other_secret(self, event: Event) -> None:
        """While the secrets differ, those that have the wrong one are refused, and with them the fleet."""
        if not self.world.store.key:  # and those with another secret cannot read what is shared
            self.fleet.disturb(event, abs(event.value))


class _Alarms(logging.Handler):
    """Hears what the daemons say."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(logging.ERROR)
        self._fleet = fleet

    def emit(self, record: logging.LogRecord) -> None:
        """One line."""
        daemon, name = running(), getattr(record, "target", None) or ""
        if daemon is None:
            raise Violation("f", record.getMessage(), name)
        self._fleet.members[daemon.number].checks.alarm(name, record.getMessage())


class Fleet:
    """One world of several hosts while it lives."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.directory = ""
        self.kernel = Kernel()
        self.dice = Random(world.seed)
        self.checks = FleetChecks(self)
        self.touched: set[int] = set()
        """The hosts whose daemons did something."""
        self.share = Share(
            Redis("redis://store", timeout=world.store.timeout),
            world.store.when_unavailable,
            _KEY if world.store.key else None,
        )
        self.lifetimes = {kept.full_name: kept.lifetime for kept in world.targets}
        self.limits = {account.name: account.limit for account in world.accounts}
        self.refused_limit = REFUSED_LIMIT.count, REFUSED_LIMIT.window
        self.servers = {server.name: AuthorizationServer(server, self.dice, self._arrived) for server in world.servers}
        for each in self.servers.values():
            each.issued = self._issued
        self.store = StoreServer(world.store, self.kernel, self.dice)
        self.store.answered, self.store.stored = self.checks.claimed, self._stored
        self.store.refused, self.store.kept = self.checks.refused, self.checks.kept
        self.members = {machine.number: Member(self, machine) for machine in world.machines}
        self._skews: list[tuple[float, float]] = []
        """How far clocks differed, and until when there may be tokens of that time."""
        self._targets: dict[str, str] = {}
        """By the store's name of a token: its target."""

    # -- from its start to its end ---------------------------------------------------------------

    def listen(self) -> None:
        """Hear errors from now on."""
        LOGGER.handlers = [_Alarms(self)]
        LOGGER.setLevel(logging.ERROR)
        LOGGER.propagate = False

    def run(self) -> None:
        """From the first start to the end of the world."""
        self.kernel.after = self._after
        if any(event.deed == "failover" for event in self.world.events):
            self.store.remember(self.world.store.lag)
        for member in self.members.values():
            member.directory = f"{self.directory}/{member.number}"
            member.begin()
        for event in self.world.events:
            self.kernel.at(event.time, partial(self._do, event))
            if event.deed == "restore":
                self.kernel.at(max(0.0, event.time - event.value), partial(self.store.snapshot, event.time))
        self.kernel.run(self.world.seconds)

    @property
    def counts(self) -> Counter[str]:
        """What happened, in all."""
        counts: Counter[str] = Counter()
        for member in self.members.values():
            counts.update(member.counts)
        counts.update({f"beyond: {what}": number for what, number in self.checks.beyond.items()})
        return counts

    def trace(self, target: str) -> list[tuple[float, str]]:
        """What happened of late that concerns a target, on all hosts."""
        return list(self.checks.traces[target])

    def made(self) -> Counter[str]:
        """The checks that were made, in all."""
        made = Counter(self.checks.made)
        for member in self.members.values():
            made.update(member.checks.made)
        return made

    def _after(self) -> None:
        while self.touched:
            member = self.members[self.touched.pop()]
            member._after()

    # -- for the checks --------------------------------------------------------------------------

    def target_of(self, names: Names) -> str:
        """Whose names they are. Each daemon names them for itself, and all the same."""
        return self._targets[names.token]

    def name(self, target: Target, names: Names) -> None:
        """A daemon uses these names for a target."""
        self._targets[names.token] = target.full_name
        self.checks.names[target.full_name] = names

    def skew(self, least: float = 25.0) -> float:
        """Seconds by which the clocks of hosts differ, where that is more than the store's clock makes good."""
        walls = [member.clock.now().wall for member in self.members.values()]
        lately = [before for until, before in self._skews if until > self.kernel.now]
        most = max(max(walls) - min(walls), *lately, 0.0)
        return most if most > least else 0.0

    def stepped(self) -> None:
        """The clock of a host is about to be set: tokens of before were dated by how they differed then."""
        self._skews.append((self.kernel.now + max(self.lifetimes.values()), self.skew(0.0)))

    def lease(self) -> float:
        """Seconds for which a lock may be held by a daemon that is gone."""
        return max(server.timeout for server in self.world.servers) + LEASE_BESIDE_TIMEOUT

    def settles(self) -> float:
        """Seconds after a disturbance until links are up, locks of the past are free, and all have seen the same."""
        return RECONNECTS + POLL + 3 * self.world.store.timeout + self.lease()

    def detour(self, name: str) -> float:
        """Seconds by which the way over the store is longer: a lock of the past, then one attempt at a time."""
        server = next(each for each in self.world.servers if self.servers[each.name].server is each)
        several = len(self.world.targets) * (2 * server.latency + 4 * self.world.store.latency)
        return self.lease() + 3 * self.world.store.timeout + several + (POLL if name else 0.0)

    def disturb(self, event: Event, seconds: float, host: int | None = None, *, loses: bool = False) -> None:
        """Something happens that excuses the fleet for so long, and until it has settled again."""
        lasts = seconds + self.settles()
        self.checks.disturb(event.deed, lasts, host, "hkls" if loses else "hkl")
        for member in self.members.values():
            for name, kept in member.kept.items():
                now, way = self.kernel.now, member._way(name)
                if self.ends_old(kept.account):
                    member._excuse(name, now, now + lasts, way, way, event.deed)
                # A lock may be left behind by a holder that is gone, or that was never told of it.
                member._excuse(name, now, now, way, way, event.deed)
                member._excuse(name, now + seconds, now + seconds, way, way, f"after {event.deed}")

    # -- what happens ----------------------------------------------------------------------------

    def _do(self, event: Event) -> None:
        if event.deed in _OF_STORE:
            for kept in self.world.targets:
                self.checks.trace(kept.full_name, f"event: {event}")
            getattr(self, f"_{event.deed}")(event)
            return
        for member in list(self._concerned(event)):
            self.touched.add(member.number)
            member._do(event)

    def _concerned(self, event: Event) -> Iterator[Member]:
        if event.host is None:
            yield from self.members.values()
        elif event.host in self.members:
            yield self.members[event.host]

    def _outage(self, event: Event) -> None:
        self.disturb(event, event.value)
        self.store.outage(event.value, silent=event.flag)

    def _slow(self, event: Event) -> None:
        self.disturb(event, event.value)
        self.store.slow(event.value)

    def _flush(self, event: Event) -> None:
        self.disturb(event, 0.0, loses=True)
        self.store.flush()

    def _failover(self, event: Event) -> None:
        self.disturb(event, event.value, loses=True)
        self.store.fail_over(event.value)

    def _restore(self, event: Event) -> None:
        self.disturb(event, 0.0, loses=True)
        self.store.restore(event.time)

    def _store_step(self, event: Event) -> None:
        # What was counted by the old clock counts for as long as the clock went back, besides its own time.
        longest = max(kept.lifetime for kept in self.world.targets)
        windows = [account.limit[1] for account in self.world.accounts if account.limit]
        lasts = abs(event.value) + max([longest, *windows])
        self.disturb(event, lasts, loses=True)
        self.checks.disturb(event.deed, lasts, of="t")
        self.store.step(event.value)

    def _mute(self, event: Event) -> None:
        """Until a poll finds what was not announced."""
        lasts = event.value + POLL + 2 * self.world.store.timeout
        self.checks.disturb("mute", lasts, of="k")
        self.store.mute(event.value)

        def over() -> None:
            for member in self.members.values():
                member.expect()

        self.kernel.at(self.kernel.now + lasts + INSTANT, over)

    # -- providers and the store -----------------------------------------------------------------

    def _arrived(self, arrival: Arrival) -> None:
        self.checks.arrived(arrival)
        member = self.members[arrival.sender]
        if arrival.sent >= member.started_at and not member._down:
            member.checks.arrived(arrival)

    def _issued(self, token: Known, ended: Known | None) -> None:
        self.checks.issued(token)
        if ended is not None:
            for member in self.members.values():
                self.kernel.at(ended.ends + INSTANT, partial(member._look, ended.target))

    def _stored(self, names: Names, fence: int) -> None:
        name = self.target_of(names)
        self.checks.stored(name, fence)
        for member in self.members.values():
            if not member._down:
                self.checks.expect(member, name)

    def ends_old(self, account: str) -> bool:
        """Whether the provider of this client ends the previous token with each new one."""
        found = next(each for each in self.world.accounts if each.name == account)
        return self.servers[found.server].server.ends_old is not None
