"""Worlds out of seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Final

from simulation.describe import Account, Deed, Event, Fault, FaultKind, Form, Habit, Kept, Server, World
from simulation.fleet_worlds import fleet_of

MINUTE: Final = 60.0
HOUR: Final = 3600.0
DAY: Final = 86400.0
HABITS: Final[tuple[Habit, ...]] = ("fresh", "jwt", "same", "sliding", "unnamed", "zero", "cache", "cache_age")
FAULTS: Final[tuple[FaultKind, ...]] = (
    "refuse", "silence", "reset", "500", "503", "503_after", "429", "429_after", "html", "404", "expired", "401",
    "slow_401", "flaky",
)  # fmt: skip
DEEDS: Final[tuple[Deed, ...]] = (
    "step", "suspend", "kill", "restart", "remove", "reschedule", "move", "rescope", "slots", "rotate", "mistype",
    "refresh", "fail_disk", "tamper",
)  # fmt: skip
LIFETIMES: Final = (MINUTE, 5 * MINUTE, 20 * MINUTE, HOUR, 2 * HOUR, 8 * HOUR, DAY)


_REQUESTS: Final[dict[Habit, float]] = {"same": 16, "sliding": 16, "zero": 16, "cache": 8, "cache_age": 8}
"""Requests in each lifetime, of habits that need more than one."""


def _population(
    dice: Random, most: int, lifetimes: tuple[float, ...] = LIFETIMES, habits: tuple[Habit, ...] = HABITS
) -> World:
    """Who there is."""
    servers, accounts, targets = [], [], []
    for number in range(dice.choice((1, 1, 2))):
        latency = dice.choice((0.02, 0.1, 0.5))
        servers.append(Server(f"s{number}", latency, slots=dice.choice((1, 2, 4, 8, 8))))
    for number in range(dice.randint(1, 3)):
        account = Account(f"c{number}", dice.choice(servers).name)
        accounts.append(account)
        habit, lifetime = dice.choice(habits), dice.choice(lifetimes)
        for index in range(dice.randint(1, most)):
            if dice.random() < 0.3:
                habit, lifetime = dice.choice(habits), dice.choice(lifetimes)
            form: Form = dice.choice(("seconds", "seconds", "text", "date", "unix"))
            kept = Kept(account.name, f"t{index}", habit, lifetime, form, dice.choice((0.2, 0.2, 0.1, 0.5)))
            targets.append(replace(kept, remove=dice.random() < 0.3))
    return World(0, "", 0.0, tuple(servers), tuple(accounts), tuple(targets))


def _delayed(world: World, dice: Random) -> World:
    """With tokens that are accepted only some time after they were issued, in a part of the worlds."""
    if dice.random() < 0.7:
        return world
    targets = []
    for kept in world.targets:
        if kept.habit in {"fresh", "jwt", "unnamed"} and kept.lifetime >= 5 * MINUTE:
            # At least twice the timeout, so that a slow reply is no early one; at most a fifth of a lifetime.
            delay = dice.choice((0.0, 20.0, MINUTE, kept.lifetime / 10))
            nbf = dice.choice((0.0, 5.0, 40.0)) if kept.habit == "jwt" else 0.0
            targets.append(replace(kept, delay=min(delay, HOUR), nbf=nbf))
        else:
            targets.append(kept)
    return replace(world, targets=tuple(targets))


def _some(world: World, dice: Random) -> str:
    """One of its servers, accounts or targets."""
    names = [server.name for server in world.servers] + [account.name for account in world.accounts]
    return dice.choice(names + [kept.full_name for kept in world.targets])


def _faults(world: World, dice: Random, number: int, kinds: tuple[FaultKind, ...] = FAULTS) -> World:
    """With so many spans in which a provider is not well."""
    found = []
    for _ in range(number):
        kind = dice.choice(kinds)
        long = dice.choice((1.0, 20.0, 60.0, 600.0, 1800.0, HOUR))
        start = world.seconds * dice.random()
        value = dice.choice((0.0, 5.0, 30.0, HOUR)) if kind.endswith("after") else 0.3
        of = _some(world, dice)
        if kind in {"401", "slow_401"}:
            of = of.partition("/")[0] if of.startswith("c") else dice.choice(world.accounts).name
        found.append(Fault(kind, start, start + long * (0.5 + dice.random()), of, value))
    return replace(world, faults=world.faults + tuple(found))


_VALUES: Final[dict[Deed, tuple[float, ...]]] = {
    "step": (-3000.0, -40.0, -20.0, 8.0, 40.0, 3000.0),
    "suspend": (5.0, 300.0, 7200.0),
    "kill": (0.1, 5.0, 60.0),
    "restart": (0.5, 30.0, 600.0),
    "reschedule": (0.1, 0.2, 0.5),
    "slots": (1.0, 2.0, 8.0),
    "rotate": (-5.0, 0.0, 1.0, 60.0, 600.0),
    "mistype": (5.0, 60.0, 600.0),
    "fail_disk": (1.0, 30.0, 600.0),
}
"""The `value` of each deed that has one."""
_UNTIL_PUT_BACK: Final = (0.0, 0.05, 1.0, 60.0, HOUR)


def _deeds(world: World, dice: Random, number: int, deeds: tuple[Deed, ...] = DEEDS) -> World:
    """With so many things that happen."""
    events: list[Event] = []
    for _ in range(number):
        deed, time = dice.choice(deeds), world.seconds * dice.random()
        of = dice.choice(world.targets).full_name
        if deed in {"rotate", "mistype"}:
            of = dice.choice(world.accounts).name
        elif deed == "slots":
            of = dice.choice(world.servers).name
        elif deed in {"step", "suspend", "kill", "restart", "fail_disk"}:
            of = ""
        flag, text = dice.random() < 0.5, "bare" if dice.random() < 0.2 else ""
        events.append(Event(time, deed, of, dice.choice(_VALUES.get(deed, (0.0,))), flag=flag, text=text))
        if deed == "remove":
            events.append(Event(time + dice.choice(_UNTIL_PUT_BACK), "put_back", of))
            if flag:
                events.append(Event(time + 0.02, "reschedule", of, dice.choice(_VALUES["reschedule"])))
    return replace(world, events=world.events + tuple(sorted(events, key=lambda event: event.time)))


def _sized(world: World, dice: Random, grants: int) -> World:
    """As long as the most of its tokens need for about so many grants, and for two of its shortest at least."""
    rate = sum(_REQUESTS.get(kept.habit, 1 / (1 - kept.share)) / kept.lifetime for kept in world.targets)
    longest, shortest = (pick(kept.lifetime for kept in world.targets) for pick in (max, min))
    return replace(world, seconds=max(2 * shortest, min(grants / rate, 2000 * longest)) * (0.5 + dice.random()))


def healthy(dice: Random, grants: int) -> World:
    """Nothing is wrong; every habit."""
    return _sized(_population(dice, 4), dice, grants)


def years(dice: Random, grants: int) -> World:
    """Long-lived tokens, with a fault every month."""
    # Tokens that are the same again are asked for some sixteen times in each lifetime: the other kinds have them.
    habits: tuple[Habit, ...] = ("fresh", "fresh", "jwt", "unnamed", *HABITS) if dice.random() < 0.1 else (
        "fresh", "fresh", "jwt", "unnamed",
    )  # fmt: skip
    world = _population(dice, 6, (8 * HOUR, *9 * (DAY,)), habits)
    world = replace(world, targets=tuple(replace(kept, share=min(kept.share, 0.2)) for kept in world.targets))
    world = _sized(world, dice, 5 * grants)
    months = int(world.seconds / (30 * DAY)) + 1
    return _deeds(_faults(world, dice, min(months, 20)), dice, min(months, 20))


def ill(dice: Random, grants: int) -> World:
    """Providers with faults."""
    world = _sized(_population(dice, 4), dice, grants)
    return _faults(world, dice, dice.randint(1, 8))


def busy(dice: Random, grants: int) -> World:
    """Everything that happens to a daemon, at well providers."""
    world = _sized(_population(dice, 4), dice, grants)
    return _deeds(replace(world, disk_delay=dice.choice((0.0, 0.1))), dice, dice.randint(2, 10))


def wild(dice: Random, grants: int) -> World:
    """All of it."""
    world = _sized(_population(dice, 4), dice, grants)
    world = replace(world, disk_delay=dice.choice((0.0, 0.1)))
    return _deeds(_faults(world, dice, dice.randint(2, 8)), dice, dice.randint(2, 8))


def scopes(dice: Random, grants: int) -> World:
    """One target of a client is always refused, with a code of the client or its own, or always fails."""
    habits: tuple[Habit, ...] = ("fresh", "jwt", "unnamed", "same")
    world = _population(dice, 4, LIFETIMES[:-1], habits)
    account = world.accounts[0].name
    more = [Kept(account, f"u{number}", lifetime=dice.choice(LIFETIMES[:-1])) for number in range(2)]
    world = _sized(replace(world, targets=(*world.targets, *more)), dice, grants)
    kinds: tuple[FaultKind, ...] = ("scope_401", "scope_401", "scope_400", "500", "503")
    start = dice.choice((0.0, world.seconds / 3))
    bad = Fault(dice.choice(kinds), start, world.seconds + DAY, f"{account}/u0")
    world = replace(world, faults=(bad,))
    if dice.random() < 0.5:
        return _faults(world, dice, 2, ("refuse", "503", "silence"))
    return _deeds(world, dice, 2, ("kill", "restart", "refresh", "reschedule"))


def limited(dice: Random, grants: int) -> World:
    """Rate limits, which a reload takes away or changes; restarts that must not forget them."""
    lifetimes = (5 * MINUTE, 20 * MINUTE, HOUR)
    world = _sized(_population(dice, 4, lifetimes, ("fresh", "jwt", "unnamed")), dice, grants)
    accounts, events = [], list[Event]()
    for account in world.accounts:
        lives = [kept.lifetime for kept in world.targets if kept.account == account.name]
        tight = dice.random() < 0.5
        limit = (2, 8 * HOUR) if tight else (4 * len(lives), min(lives) / 4)
        accounts.append(replace(account, limit=limit, tight=tight))
        if dice.random() < 0.7:
            other = None if dice.random() < 0.6 else (6 * len(lives), min(lives) / 4)
            events.append(Event(world.seconds * (0.1 + 0.4 * dice.random()), "limit", account.name, limit=other))
    for _ in range(dice.randint(0, 2)):  # a crash loop
        time = world.seconds * dice.random()
        events += [Event(time + 2.0 * number, "kill", value=1.0, flag=number % 2 == 1) for number in range(6)]
    events.sort(key=lambda event: event.time)
    world = replace(world, accounts=tuple(accounts), events=tuple(events), disk_delay=0.1)
    return _deeds(world, dice, 2, ("restart", "refresh", "kill"))


def crashes(dice: Random, grants: int) -> World:
    """A wrong secret, or a revoked one, and a process that is killed again and again in its attempts."""
    world = _sized(_population(dice, 3, LIFETIMES[:4]), dice, grants)
    events = list[Event]()
    for _ in range(dice.randint(1, 2)):
        time, account = world.seconds * dice.random(), dice.choice(world.accounts).name
        deed: Deed = dice.choice(("mistype", "rotate"))
        events.append(Event(time, deed, account, dice.choice((60.0, 600.0, 1800.0))))
        for number in range(dice.randint(2, 10)):
            events.append(Event(time + 1.0 + 3.0 * number, "kill", value=dice.choice((0.1, 2.0)), flag=True))
    events.sort(key=lambda event: event.time)
    return _deeds(replace(world, events=tuple(events)), dice, 2, ("restart", "refresh", "mistype"))


def herd(dice: Random, grants: int) -> World:
    """Many targets at few slots of a slow provider, and an outage."""
    server = Server("s0", dice.choice((0.5, 2.0)), slots=dice.choice((1, 2, 4)))
    accounts = tuple(Account(f"c{number}", "s0") for number in range(dice.randint(1, 4)))
    lifetime = dice.choice((20 * MINUTE, HOUR))
    targets = tuple(
        Kept(dice.choice(accounts).name, f"t{number}", lifetime=lifetime * (0.5 + dice.random()))
        for number in range(dice.randint(10, 30))
    )
    seconds = lifetime * min(10, max(3, grants / len(targets)))
    world = World(0, "", seconds, (server,), accounts, targets)
    start = seconds * (0.3 + 0.4 * dice.random())
    kind: FaultKind = dice.choice(("refuse", "silence", "503"))
    return replace(world, faults=(Fault(kind, start, start + lifetime * dice.random(), "s0"),))


KINDS: Final[tuple[tuple[Callable[[Random, int], World], int], ...]] = (
    (healthy, 1),
    (years, 7),
    (ill, 4),
    (busy, 3),
    (wild, 4),
    (scopes, 2),
    (limited, 2),
    (crashes, 2),
    (herd, 1),
)


ANY_FLEET: Final = "fleets"
"""The kind that means all kinds of fleets."""


def world_of(seed: int, kind: str = "", grants: int = 800) -> World:
    """The world of a seed, with about so many grants; of a fleet, in each 80th of that many lifetimes."""
    if kind.startswith("fleet"):
        return fleet_of(seed, "" if kind == ANY_FLEET else kind, grants / 80)
    dice = Random(seed)
    make = dice.choices([make for make, _ in KINDS], [weight for _, weight in KINDS])[0]
    if kind:
        make = next(each for each, _ in KINDS if each.__name__ == kind)
    # Dice of its own: the worlds are otherwise those that they would be without.
    return replace(_delayed(make(dice, grants), Random(-1 - seed)), seed=seed, kind=make.__name__)
