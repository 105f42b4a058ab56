"""Every order of requests and outcomes of two clients with three targets each at one provider, over the pure core.

The states are searched breadth-first; two states that differ only in the moment they are reached are one.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Any

from bearerd.grant.outcome import Outcome
from bearerd.terms import RateLimit
from support.admission import ISSUED, OWN, REFUSED, SILENCE, UNSENT, World, limits

TARGETS = ("c/a", "c/b", "c/c", "d/a", "d/b", "d/c")
WALKED = (ISSUED, REFUSED, OWN, SILENCE, UNSENT)

Step = tuple[str, str, Outcome | None]


def steps(world: World) -> Iterator[Step]:
    """Everything that can happen next."""
    fresh = set()
    for name in TARGETS:
        # Targets of a client that did not request yet are alike, and so are clients.
        kind = name if name in world.asks else name[0] if world.asks else ""
        if name not in world.tickets and name not in world.held and kind not in fresh:
            fresh.add(kind)
            yield "request", name, None
    for name in world.tickets:
        for outcome in WALKED:
            yield "settle", name, outcome
    if world.alarms:
        yield "wait", "", None
    for client in "cd":
        if world.core.registry.clients[client].breaker.refusal is not None:
            yield "forgive", client, None


def take(world: World, step: Step) -> None:
    """Let it happen; whoever is woken requests at once."""
    kind, name, outcome = step
    if kind == "request":
        world.turn(name)
    elif kind == "settle":
        world.settle(name, outcome)
    elif kind == "wait":
        world.jump()
    else:
        world.core.forgive(name, world.now)
        world.follow()
    world.run()


def state(world: World) -> Hashable:
    """All that the next decisions depend on; moments count from now."""
    now, core, waiting = world.now, world.core, world.core.waiting

    def ago(moment: float) -> float:
        return inf if moment in (inf, -inf) else round(moment - now, 3)

    clients = []
    for client in core.registry.clients.values():
        breaker, ledger = client.breaker, client.ledger
        refused = [sorted((n, o.refusals, ago(o.at), ago(o.next_at)) for n, o in each.items())
                   for each in (breaker.tried, breaker.own)]  # fmt: skip
        token = ago(breaker._last_token) if now - breaker._last_token <= 60.0 else None
        sent = breaker._last, ago(breaker._last_sent), ago(breaker._other_sent)
        clients.append((
            breaker.worked, breaker.refusal is not None, breaker.refusals, breaker.epoch, token, sent if world.tickets
            else None, ago(max(breaker.probe_at, now)), ago(max(breaker._early_at, now)), str(refused), ledger.changed,
            tuple(ago(moment) for moment in ledger._refused if now < moment + client.limits.refused_limit.window),
        ))  # fmt: skip
    provider = core.registry.providers[next(iter(core.registry.providers))]
    flights = sorted((f.ask.name, f.governed, f.epoch, ago(f.granted), f.kept) for f in core._attempts.values())
    rates = tuple(
        ago(moment) for rate in core.registry._rates.values() for moment in rate._done
        if now < moment + rate.limit.window
    )  # fmt: skip
    return (
        *clients, str(flights), round(provider.retry.left(now), 3), provider.retry._unanswered, rates,
        tuple(waiting.queued), tuple(sorted((n, t.reason, ago(t.until)) for n, t in waiting.timed.items())),
        tuple(sorted((n, ago(at)) for n, at in world.alarms.items())),
        tuple(sorted((n, a.failures, a.retry) for n, a in world.asks.items())),
    )  # fmt: skip


@dataclass
class Walk:
    """What was seen."""

    states: int = 1
    """Different ones."""
    steps: int = 0
    depth: int = 0
    """Steps within which every state was reached."""


def walk(start: World, *, seconds: float = inf, depth: float = inf) -> Walk:
    """Search from a world, breadth-first, to that depth or until the time is used up; raises AssertionError."""
    found = Walk()
    seen = {hash(state(start))}
    level: list[tuple[bytes, Any]] = [(pickle.dumps(start), ())]
    end = time.monotonic() + seconds
    while found.depth < depth:
        following: list[tuple[bytes, Any]] = []
        for kept, path in level:
            for step in list(steps(pickle.loads(kept))):
                world = pickle.loads(kept)
                try:
                    take(world, step)
                    world.check()
                except AssertionError as error:
                    shown = [(*one[:2], type(one[2]).__name__) for one in _listed((path, step))]
                    raise AssertionError(f"after {shown}: {error}") from error
                found.steps += 1
                reached = hash(state(world))
                if reached not in seen:
                    seen.add(reached)
                    following.append((pickle.dumps(world), (path, step)))
            if time.monotonic() > end:
                found.states = len(seen)
                return found
        found.depth, found.states = found.depth + 1, len(seen)
        level = following
    return found


def _listed(path: Any) -> list[Step]:
    return [*_listed(path[0]), path[1]] if path else []


WORLDS: dict[str, Callable[[], World]] = {
    "few slots": lambda: World(limits("cd", max_concurrency=2)),
    "many slots, two refused": lambda: World(limits("cd", refused_limit=RateLimit(2, 120.0))),
    "a rate limit": lambda: World(limits("cd", max_concurrency=2, rates={"p": RateLimit(2, 30.0)})),
}
