"""Worlds out of seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Final

from simulation.describe import Account, Deed, Event, Fault, FaultKind, Form, Habit, Kept, Server, World

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
    world = _sized(_population(dice, 6, (8 * HOUR, DAY, DAY, DAY, DAY), habits), dice, 5 * grants)
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


KINDS: Final[tuple[tuple[Callable[[Random, int], World], int], ...]] = (
    (healthy, 2),
    (years, 4),
    (ill, 4),
    (busy, 4),
    (wild, 4),
)


def world_of(seed: int, kind: str = "", grants: int = 800) -> World:
    """The world of a seed, with about so many grants."""
    dice = Random(seed)
    make = dice.choices([make for make, _ in KINDS], [weight for _, weight in KINDS])[0]
    if kind:
        make = next(each for each, _ in KINDS if each.__name__ == kind)
    return replace(make(dice, grants), seed=seed, kind=make.__name__)
