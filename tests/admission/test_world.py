"""Random lives of two clients, in which the invariants of admission must hold."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bearerd.grant.outcome import Outcome, Refused
from bearerd.terms import RateLimit
from support.admission import ISSUED, OUTCOMES, OWN, PROVIDER, REFUSED, World, limits

NAMES = [f"{client}/{letter}" for client in "cd" for letter in "abc"]
PASSED = [0.001, 1.0, 2.0, 5.0, 30.0, 61.0, 119.999, 600.0]
REMAINING: list[float | None] = [None, -5.0, 3.0, 20.0, 600.0]


def some_limits(
    max_concurrency: int, refused: int, rate: tuple[int, float] | None, *, moved: bool = False
) -> Any:  # as `limits` returns it
    return limits(
        "cd",
        max_concurrency=max_concurrency,
        refused_limit=RateLimit(refused, 120.0),
        rates={"p": RateLimit(*rate)} if rate else None,
        provider=PROVIDER + "/moved" * moved,
    )


LIMITS = st.builds(
    some_limits,
    st.integers(1, 4),
    st.integers(1, 4),
    st.one_of(st.none(), st.tuples(st.integers(1, 5), st.sampled_from([10.0, 60.0, 300.0]))),
)


def changed(remaining: float | None, now: float, **changes: Any) -> dict[str, Any]:
    """The remaining seconds of a token."""
    return {"expires": None if remaining is None else now + remaining, "lifetime": 3600.0, "period": 2880.0, **changes}


class Lives(RuleBasedStateMachine):
    """All events that can happen to a core, chosen by hypothesis."""

    @initialize(given=LIMITS)
    def begin(self, given: Any) -> None:
        self.world = World(given)

    @rule(name=st.sampled_from(NAMES))
    def requests(self, name: str) -> None:
        self.world.turn(name)

    @rule(
        name=st.sampled_from(NAMES),
        remaining=st.sampled_from(REMAINING),
        last_attempt=st.booleans(),
        requested=st.booleans(),
    )
    def requests_with_another_token(
        self, name: str, remaining: float | None, last_attempt: bool, requested: bool
    ) -> None:
        if name not in self.world.tickets:
            self.world.turn(name, **changed(remaining, self.world.now, last_attempt=last_attempt, requested=requested))

    @precondition(lambda self: bool(self.world.tickets))
    @rule(which=st.integers(0, 7), outcome=st.sampled_from(OUTCOMES))
    def ends(self, which: int, outcome: Outcome | None) -> None:
        names = list(self.world.tickets)
        self.world.settle(names[which % len(names)], outcome)

    @rule()
    def all_that_are_due_request(self) -> None:
        self.world.run()

    @rule()
    def waits_for_the_next_moment(self) -> None:
        self.world.jump()

    @rule(seconds=st.sampled_from(PASSED))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds
        self.world.run()

    @rule(client=st.sampled_from("cd"))
    def credentials_change(self, client: str) -> None:
        self.world.core.forgive(client, self.world.now)
        self.world.follow()

    @rule(
        name=st.sampled_from(NAMES),
        outcome=st.sampled_from([REFUSED, OWN]),
        refusals=st.integers(1, 5),
        wait=st.sampled_from([0.0, 2.0, 300.0]),
    )
    def another_daemon_is_refused(self, name: str, outcome: Refused, refusals: int, wait: float) -> None:
        self.world.core.fleet_refused(name, name[0], outcome, refusals, wait, self.world.now)
        self.world.follow()

    @rule(name=st.sampled_from(NAMES))
    def another_daemon_gets_a_token(self, name: str) -> None:
        self.world.core.fleet_issued(name, name[0], self.world.now)
        self.world.follow()

    @rule()
    def sweeps(self) -> None:
        sweep(self.world)

    @rule(name=st.sampled_from(NAMES))
    def a_target_is_removed(self, name: str) -> None:
        remove(self.world, name)

    @rule(seconds=st.sampled_from([0.0, 1.0, 30.0]))
    def is_killed_and_started(self, seconds: float) -> None:
        self.world.restart(after=seconds)

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "world"):
            self.world.check()


def sweep(world: World) -> None:
    world.core.sweep(world.now)
    world.follow()
    for name, ticket in list(world.tickets.items()):
        if ticket.number not in world.core._attempts:
            del world.tickets[name]


def remove(world: World, name: str) -> None:
    if name not in world.tickets:
        world.core.forget(name, name[0], world.now)
        world.follow()
        world.alarms.pop(name, None)
        world.asks.pop(name, None)
        world.held.pop(name, None)


Lives.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestLives = Lives.TestCase


def live(dice: Random, steps: int, *, reloads: bool) -> World:
    """A random life. Windows are not checked with reloads, because these change the limits."""

    def some() -> Any:
        rate = dice.choice([None, (dice.randint(1, 5), dice.choice([10.0, 60.0, 300.0]))])
        return some_limits(dice.randint(1, 4), dice.randint(1, 4), rate, moved=reloads and dice.random() < 0.2)

    world = World(some())
    likely = dice.choices(OUTCOMES, k=dice.randint(2, 6))

    def reload() -> None:
        world.limits = some()
        world.core.revise(world.limits, world.now)
        world.follow()

    def request() -> None:
        name = dice.choice(NAMES)
        more = changed(dice.choice(REMAINING), world.now, last_attempt=dice.random() < 0.1)
        if name not in world.tickets:
            world.turn(name, **(more if dice.random() < 0.5 else {}))

    def end() -> None:
        if world.tickets:
            world.settle(dice.choice(sorted(world.tickets)), dice.choice(likely))

    def forgive() -> None:
        world.core.forgive(dice.choice("cd"), world.now)
        world.follow()

    actions: list[tuple[int, Callable[[], object]]] = [
        (30, request), (35, end), (15, world.run), (10, world.jump), (2, forgive), (2, lambda: sweep(world)),
        (1, lambda: remove(world, dice.choice(NAMES))), (3 * reloads, reload),
    ]  # fmt: skip
    for _ in range(steps):
        dice.choices([action for _, action in actions], [weight for weight, _ in actions])[0]()
        if reloads:
            for attempt in world.core._attempts.values():  # fewer slots apply as attempts end
                if attempt.provider.in_flight > attempt.provider.max_concurrency:
                    break
            else:
                world.check_waiting()
        else:
            world.check()
    return world


@pytest.mark.parametrize("reloads", [False, True])
@pytest.mark.parametrize("seeds", [range(100 * part, 100 * part + 100) for part in range(4)], ids=str)
def test_every_target_gets_its_token_once_the_provider_works(seeds: range, reloads: bool) -> None:
    for seed in seeds:
        world = live(Random(seed), 120, reloads=reloads)
        for _ in range(2000):
            for name in list(world.tickets):
                world.settle(name, ISSUED)
                world.alarms.pop(name, None)
                world.held.pop(name, None)
            if not world.held:
                break
            world.run()
            if not world.tickets:
                assert world.jump()
        assert not world.held, f"seed {seed}: {set(world.held)} wait for ever"
