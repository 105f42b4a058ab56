"""Worlds of fleets out of seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Final

from simulation.describe import Account, Deed, Event, Fault, FaultKind, Habit, Kept, Machine, Server, Store, World

MINUTE: Final = 60.0
HOUR: Final = 3600.0
LIFETIMES: Final = (MINUTE, 5 * MINUTE, 20 * MINUTE, HOUR)
ENDS: Final[tuple[Habit, ...]] = ("fresh", "jwt")
"""Habits in which each grant makes a new token."""
HABITS: Final[tuple[Habit, ...]] = ("fresh", "fresh", "jwt", "same", "sliding", "unnamed", "cache_age")
OF_STORE: Final[tuple[Deed, ...]] = ("outage", "slow", "flush", "failover", "restore", "store_step", "mute", "cut")
OF_HOSTS: Final[tuple[Deed, ...]] = ("kill", "restart", "stop", "suspend", "step", "fail_disk", "tamper", "refresh")
_VALUES: Final[dict[Deed, tuple[float, ...]]] = {
    "outage": (0.5, 5.0, 30.0, 300.0),
    "slow": (2.0, 30.0, 120.0),
    "failover": (0.2, 5.0, 30.0),
    "restore": (10.0, 300.0, 1800.0),
    "store_step": (-600.0, -40.0, -3.0, 3.0, 40.0, 600.0),
    "mute": (5.0, 60.0, 600.0),
    "cut": (0.5, 5.0, 60.0, 600.0),
    "kill": (0.1, 5.0, 60.0),
    "restart": (0.5, 5.0, 120.0),
    "stop": (0.5, 6.0, 30.0, 120.0, 600.0),
    "suspend": (5.0, 300.0),
    "step": (-40.0, -20.0, 8.0, 40.0),
    "fail_disk": (1.0, 30.0),
}
"""The `value` of each deed that has one."""


def _fleet(dice: Random, *, most: int = 50, habits: tuple[Habit, ...] = HABITS, skew: float = 10.0) -> World:
    """Who there is. Small fleets are more frequent: more happens to each of their hosts."""
    size = min(most, dice.choice((2, 2, 3, 3, 5, 8, 16, 50)))
    at_once = dice.random() < 0.5
    machines = tuple(
        Machine(number, 0.0 if at_once else 30.0 * dice.random(), skew * (2 * dice.random() - 1))
        for number in range(size)
    )
    server = Server("s0", dice.choice((0.02, 0.1, 0.5)), slots=dice.choice((1, 2, 8)))
    accounts = tuple(Account(f"c{number}", "s0") for number in range(dice.choice((1, 1, 2))))
    targets = tuple(
        Kept(account.name, f"t{index}", dice.choice(habits), dice.choice(LIFETIMES), share=dice.choice((0.2, 0.2, 0.4)))
        for account in accounts
        for index in range(dice.choice((1, 1, 2, 3)))
    )
    store = Store(dice.choice((0.0005, 0.002, 0.02)), when_unavailable=dice.choice(("alone", "wait")))
    store = replace(store, key=dice.random() < 0.7, lag=dice.choice((0.1, 1.0, 5.0)))
    return World(0, "", 0.0, (server,), accounts, targets, machines=machines, store=store)


def _lasting(world: World, dice: Random, lifetimes: float) -> World:
    """For so many of its longest lifetimes, but not more of its shortest ones than take their time."""
    if len(world.machines) > 16:  # each of them costs time
        lifetimes /= 3
    longest, shortest = (pick(kept.lifetime for kept in world.targets) for pick in (max, min))
    return replace(world, seconds=min(lifetimes * longest, 10 * lifetimes * shortest) * (0.7 + 0.6 * dice.random()))


def _deeds(world: World, dice: Random, number: int, deeds: tuple[Deed, ...]) -> World:
    """With so many things that happen to the store, to a host, or to all hosts at once."""
    events = []
    for _ in range(number):
        deed, time = dice.choice(deeds), world.seconds * dice.random()
        host = None
        if deed == "cut" or (deed in OF_HOSTS and dice.random() < 0.8):
            host = dice.choice(world.machines).number
        of = dice.choice(world.targets).full_name if deed in {"tamper", "refresh"} else ""
        value = dice.choice(_VALUES.get(deed, (0.0,)))
        flag = dice.random() < 0.5 and (deed not in {"kill", "stop"} or host is not None) and deed != "refresh"
        text = "claim" if deed == "stop" and host is not None and not flag else ""
        events.append(Event(time, deed, of, value, flag=flag, text=text, host=host))
    return _with(world, *events)


def _with(world: World, *events: Event) -> World:
    return replace(world, events=tuple(sorted((*world.events, *events), key=lambda event: event.time)))


def _faults(world: World, dice: Random, number: int) -> World:
    """With so many spans in which the provider is not well."""
    kinds: tuple[FaultKind, ...] = ("refuse", "silence", "reset", "500", "503", "503_after", "429", "429_after", "html",
                                    "flaky")  # fmt: skip
    found = []
    for _ in range(number):
        kind = dice.choice(kinds)
        start, long = world.seconds * dice.random(), dice.choice((1.0, 20.0, 60.0, 600.0))
        value = dice.choice((0.0, 5.0, 30.0)) if kind.endswith("after") else 0.3
        of = dice.choice(["s0", *(kept.full_name for kept in world.targets)])
        found.append(Fault(kind, start, start + long * (0.5 + dice.random()), of, value))
    return replace(world, faults=world.faults + tuple(found))


def fleet(dice: Random, lifetimes: float) -> World:
    """Nothing is wrong. All hosts may start again at once."""
    world = _fleet(dice)
    if dice.random() < 0.3:  # with new tokens that are accepted only after a while
        targets = [
            replace(
                kept, delay=dice.choice((20.0, MINUTE)), nbf=dice.choice((0.0, 5.0)) if kept.habit == "jwt" else 0.0
            )
            if kept.habit in ENDS and kept.lifetime >= 5 * MINUTE
            else kept
            for kept in world.targets
        ]
        world = replace(world, targets=tuple(targets))
    world = _lasting(world, dice, lifetimes)
    for _ in range(dice.choice((0, 1, 2))):
        world = _with(world, Event(world.seconds * dice.random(), "restart", value=dice.choice((0.5, 20.0))))
    return world


def fleet_same(dice: Random, lifetimes: float) -> World:
    """The provider returns the same token until its end, or for ever."""
    world = _lasting(_fleet(dice, most=16, habits=("same", "same", "sliding", "zero", "cache")), dice, lifetimes)
    return _deeds(world, dice, dice.choice((0, 0, 1, 2)), ("restart", "kill", "outage", "stop"))


def fleet_store(dice: Random, lifetimes: float) -> World:
    """The store has faults."""
    return _deeds(_lasting(_fleet(dice), dice, lifetimes), dice, dice.randint(1, 6), OF_STORE)


def fleet_hosts(dice: Random, lifetimes: float) -> World:
    """Everything that happens to hosts."""
    return _deeds(_lasting(_fleet(dice), dice, lifetimes), dice, dice.randint(1, 8), OF_HOSTS)


def fleet_ends(dice: Random, lifetimes: float) -> World:
    """Each new token ends the previous one a few seconds later."""
    world = _fleet(dice, habits=ENDS)
    servers = tuple(replace(server, ends_old=dice.choice((3.0, 5.0, 10.0))) for server in world.servers)
    store = replace(world.store, when_unavailable="wait" if dice.random() < 0.8 else "alone")
    world = _lasting(replace(world, servers=servers, store=store), dice, lifetimes)
    return _deeds(world, dice, dice.randint(0, 4), ("outage", "failover", "flush", "cut", "stop", "kill", "restart"))


def fleet_skewed(dice: Random, lifetimes: float) -> World:
    """The clocks of its hosts differ by minutes."""
    world = _lasting(_fleet(dice, most=8, habits=ENDS, skew=dice.choice((40.0, 300.0))), dice, lifetimes)
    return _deeds(world, dice, dice.randint(0, 3), ("outage", "cut", "flush"))


def fleet_many(dice: Random, lifetimes: float) -> World:
    """Many tokens of one client, at a provider that hangs or fails for a while; all start at once."""
    world = _fleet(dice, most=5)
    lifetime = dice.choice((5 * MINUTE, 20 * MINUTE))
    targets = tuple(
        Kept("c0", f"t{number}", dice.choice(ENDS), lifetime * (0.5 + dice.random()))
        for number in range(dice.randint(10, 30))
    )
    world = _lasting(replace(world, accounts=world.accounts[:1], targets=targets), dice, lifetimes / 2)
    start = dice.choice((0.0, world.seconds * dice.random()))
    kind: FaultKind = dice.choice(("silence", "refuse", "503"))
    return replace(world, faults=(Fault(kind, start, start + lifetime * dice.random(), "s0"),))


def fleet_ill(dice: Random, lifetimes: float) -> World:
    """The provider has faults."""
    return _faults(_lasting(_fleet(dice, most=16), dice, lifetimes), dice, dice.randint(1, 5))


def fleet_limited(dice: Random, lifetimes: float) -> World:
    """A rate limit that suffices for one daemon in a fleet, and not for all of it."""
    world = _lasting(_fleet(dice, most=16, habits=ENDS), dice, lifetimes)
    accounts = []
    for account in world.accounts:
        lives = [kept.lifetime for kept in world.targets if kept.account == account.name]
        accounts.append(replace(account, limit=(4 * len(lives), min(lives) / 4)))
    world = replace(world, accounts=tuple(accounts))
    if dice.random() < 0.5:  # users request refreshes of one host after the other
        time, of = world.seconds * dice.random(), dice.choice(world.targets).full_name
        world = _with(
            world, *(Event(time + 2.0 * each.number, "refresh", of, host=each.number) for each in world.machines)
        )
    return _deeds(world, dice, dice.randint(0, 4), ("kill", "restart", "refresh", "stop"))


def fleet_refused(dice: Random, lifetimes: float) -> World:
    """Secrets are rotated, and each host has the new one at its own time; or a client is refused for a while."""
    world = _lasting(_fleet(dice, most=16, habits=ENDS), dice, lifetimes)
    events = []
    for _ in range(dice.randint(1, 2)):
        time, of = world.seconds * dice.random(), dice.choice(world.accounts).name
        if dice.random() < 0.6:
            most = dice.choice((1.0, 60.0, 300.0))
            events += [Event(time, "rotate", of, most * dice.random(), host=each.number) for each in world.machines]
        else:
            start = world.seconds * dice.random()
            fault = Fault("401", start, start + dice.choice((60.0, 600.0)), of)
            world = replace(world, faults=(*world.faults, fault))
    return _deeds(_with(world, *events), dice, dice.randint(0, 3), ("kill", "restart", "stop"))


def fleet_wild(dice: Random, lifetimes: float) -> World:
    """All of it."""
    world = _lasting(_fleet(dice), dice, lifetimes)
    return _deeds(_faults(world, dice, dice.randint(0, 3)), dice, dice.randint(2, 8), OF_STORE + OF_HOSTS)


def fleet_mute(dice: Random, lifetimes: float) -> World:
    """Announcements get lost."""
    return _deeds(_lasting(_fleet(dice), dice, lifetimes), dice, dice.randint(2, 6), ("mute",))


FLEETS: Final[tuple[Callable[[Random, float], World], ...]] = (
    fleet, fleet_same, fleet_store, fleet_hosts, fleet_ends, fleet_skewed, fleet_many, fleet_ill, fleet_limited,
    fleet_refused, fleet_wild,
)  # fmt: skip
BY_NAME: Final = {make.__name__: make for make in (*FLEETS, fleet_mute)}
"""Also kinds of which the others contain enough: for a fault that shows soonest there."""


def fleet_of(seed: int, kind: str = "", lifetimes: float = 10.0) -> World:
    """The fleet of a seed, for about so many lifetimes. Consecutive seeds give all kinds in turn."""
    make = BY_NAME[kind] if kind else FLEETS[seed % len(FLEETS)]
    return replace(make(Random(seed), lifetimes), seed=seed, kind=make.__name__)
