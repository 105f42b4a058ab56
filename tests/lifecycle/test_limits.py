"""What may never be exceeded, whatever comes: refusals of a client, and rate limits. Simulated lives.

Targets of two clients come at any moment, with any time left on their tokens; the provider refuses, passes,
fails and stays silent as the dice say; secrets change; the process is killed and started again.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from random import Random

import pytest

from bearerd.grant.outcome import Issued, Malformed, Outcome, RateLimited, Refused, Transient, Unsent
from bearerd.grant.rotation import Rotation, dump, load
from bearerd.lifecycle import policy
from bearerd.lifecycle.doors import Doors, Kind
from bearerd.model import RateLimit, Target
from support.clock import FakeClock
from support.targets import CLIENT, target, token

SEEDS = 100
STEPS = 500
OWN, SHARED = RateLimit(3, 240.0), RateLimit(10, 600.0)


@dataclass
class Request:
    """One grant as the provider saw it."""

    subject: Target
    fingerprint: str
    sent: float
    order: int
    ends: float
    outcome: Outcome | None
    heard: int | None = None
    """When, in the order of events, bearerd learnt what it came to."""
    forgotten: bool = False
    """Nobody can know of it: bearerd was killed meanwhile, and its client was in no trouble before."""


@dataclass
class Life:
    """A daemon's life, process after process, and its provider's log."""

    dice: Random
    workers: int
    limits: bool = False
    clock: FakeClock = field(default_factory=FakeClock)
    doors: Doors = field(default_factory=Doors)
    disk: dict[tuple[str, str], tuple[str, float]] = field(default_factory=dict)
    log: list[Request] = field(default_factory=list)
    under_way: list[Request] = field(default_factory=list)
    order: int = 0

    def __post_init__(self) -> None:
        self.targets: list[Target] = []
        self.secrets: dict[str, list[str]] = {}
        self.rotations: dict[str, Rotation] = {}
        for name in ("one", "two"):
            budgets = ((f"client-{name}", OWN), ("provider-p", SHARED)) if self.limits else ()
            client = replace(CLIENT, name=name, budgets=budgets)
            self.targets += [target(f"t{number}", client) for number in range(self.dice.randint(1, 6))]
            self.secrets[name] = [f"{name}-{number}" for number in range(self.dice.randint(1, 3))]
            self.rotations[name] = Rotation()
        self.good = {self.dice.choice(secrets) for secrets in self.secrets.values() if self.dice.random() < 0.7}
        # How likely a good secret is refused in passing.
        self.passing = self.dice.choice([0.0, 0.1, 0.4])

    def live(self) -> None:
        for _ in range(STEPS):
            until = self.clock.boot + self.dice.choice([0.0, 0.1, 1.0, 5.0, 30.0, 100.0]) * self.dice.random()
            while self.under_way and (ended := min(self.under_way, key=lambda each: each.ends)).ends <= until:
                self.clock.advance(ended.ends - self.clock.boot)
                self.end(ended)
            self.clock.advance(until - self.clock.boot)
            match self.dice.random():
                case x if x < 0.02:
                    self.restart()
                case x if x < 0.04:
                    self.change_secrets()
                case _ if len(self.under_way) < self.workers:
                    self.turn(self.dice.choice(self.targets))

    def turn(self, subject: Target) -> None:
        if any(each.subject is subject for each in self.under_way):
            return
        now, remaining = self.clock.boot, self.dice.choice([0.0, 10.0, 15.0, 600.0])
        if self.doors.admit(subject, now, remaining).reason:
            return
        self.keep()
        name, self.order = subject.client.name, self.order + 1
        chosen = self.secrets[name][self.rotations[name].choice(self.secrets[name])]
        ends = now + self.dice.choice([0.0, 0.1, 3.0, 15.0]) * self.dice.random()
        request = Request(subject, chosen, now, self.order, ends, self.answer(chosen))
        self.under_way.append(request)
        self.log.append(request)

    def answer(self, secret: str) -> Outcome | None:
        odd = self.dice.random()
        if odd < 0.2:
            return self.dice.choice(
                [
                    None,
                    Unsent("no secret", phase="secret"),
                    Transient("no route", phase="connect"),
                    Transient("silence", phase="wait"),
                    RateLimited("429"),
                    Malformed("HTML"),
                    Refused("scope", whole_client=False),
                ]
            )
        if secret in self.good and self.dice.random() >= self.passing:
            return Issued(token())
        return Refused("401")

    def end(self, request: Request) -> None:
        """What `Grants` and a keeper do with an answer."""
        self.under_way.remove(request)
        self.order += 1
        request.heard = self.order
        name, outcome, wait = request.subject.client.name, request.outcome, 0.0
        before, present = self.rotations[name], self.secrets[name]
        if isinstance(outcome, Issued) or (isinstance(outcome, Refused) and not outcome.whole_client):
            self.rotations[name] = before.after_success(request.fingerprint, present)
        elif isinstance(outcome, Refused):
            after = self.rotations[name] = before.after_refusal(request.fingerprint, present)
            outcome = replace(outcome, another_secret=not after.exhausted(present))
        if isinstance(outcome, Refused):
            count = self.doors.refusals(request.subject) + 1
            wait = policy.wait_after(outcome, count, 0.0, self.doors.proven(request.subject), self.dice.random())
        self.doors.report(request.subject, outcome, self.clock.boot, wait)
        self.keep()

    def keep(self) -> None:
        for kind, name, fields in self.doors.changes(self.clock.boot):
            if fields:
                self.disk[kind, name] = json.dumps(fields), self.clock.boot
            else:
                self.disk.pop((kind, name), None)

    def restart(self) -> None:
        """Killed, and started again at once or later."""
        for request in self.under_way:
            request.forgotten = ("clients", request.subject.client.name) not in self.disk
        self.under_way.clear()
        self.clock.advance(self.dice.choice([0.0, 1.0, 200.0]) * self.dice.random())
        self.doors = Doors()
        kinds: dict[str, Kind] = {"clients": "clients", "budgets": "budgets"}
        for (kind, name), (fields, kept) in self.disk.items():
            self.doors.restore(kinds[kind], name, json.loads(fields), self.clock.boot - kept, self.clock.boot)
        for name, secrets in self.secrets.items():
            rotation = self.rotations[name] = load(json.loads(json.dumps(dump(self.rotations[name]))))
            if self.doors.refusal(name) is not None and not rotation.exhausted(secrets):
                self.doors.renew(name)
        self.keep()

    def change_secrets(self) -> None:
        """Somebody puts another list in place, or the provider takes others."""
        name = self.dice.choice(list(self.secrets))
        if self.dice.random() < 0.5:
            self.order += 1
            self.secrets[name] = [f"{name}-{self.order}-{number}" for number in range(self.dice.randint(1, 3))]
        self.good = {self.dice.choice(secrets) for secrets in self.secrets.values() if self.dice.random() < 0.6}

    def refused(self, client: str) -> list[Request]:
        """What the provider counts against a client, as far as anybody can know of it."""
        return [
            each
            for each in self.log
            if each.subject.client.name == client
            and isinstance(each.outcome, Refused)
            and each.outcome.whole_client
            and not each.forgotten
        ]

    def counted(self, client: str | None = None) -> list[float]:
        """When the provider was asked, for one client or at all."""
        return [
            each.sent
            for each in self.log
            if client in (None, each.subject.client.name)
            and (each.outcome is None or isinstance(each.outcome, Issued) or each.outcome.reached_the_endpoint)
        ]


def most(moments: list[float], window: float) -> int:
    """How many there are at most in any window of that length; the clock's last digits are not counted."""
    ordered = sorted(moments)
    return max(
        (index - bisect_right(ordered, moment - window + 1e-6) + 1 for index, moment in enumerate(ordered)), default=0
    )


@pytest.mark.parametrize("workers", [1, 4])
def test_no_client_is_ever_refused_a_fifth_time_in_two_minutes(workers: int) -> None:
    reached = set()
    for seed in range(SEEDS):
        life = Life(Random(seed), workers)
        life.live()
        for client in ("one", "two"):
            refused = most([each.sent for each in life.refused(client)], 120.0)
            assert refused <= 4, f"seed {seed}"
            reached.add(refused)
    assert 4 in reached  # else it would show nothing


def test_with_more_workers_only_those_go_on_who_were_under_way_at_the_first_refusal() -> None:
    # A client that works may have as many grants under way as its provider has workers.
    for seed in range(SEEDS):
        life = Life(Random(seed), workers=20)
        life.live()
        for client in ("one", "two"):
            refused = life.refused(client)
            for each in refused:
                within = [other for other in refused if each.sent - 120.0 + 1e-6 < other.sent <= each.sent]
                known = [other for other in within if other.heard is not None and other.heard < each.order]
                earlier = [other for other in within if other.order < each.order]
                assert not known or len(earlier) < 4, f"seed {seed}"


def test_no_rate_limit_is_ever_exceeded() -> None:
    reached = set()
    for seed in range(SEEDS):
        life = Life(Random(seed), workers=8, limits=True)
        life.live()
        for client in ("one", "two"):
            own = most(life.counted(client), OWN.window)
            assert own <= OWN.count, f"seed {seed}"
            reached.add(own)
        shared = most(life.counted(), SHARED.window)
        assert shared <= SHARED.count, f"seed {seed}"
        reached.add(shared)
    assert {OWN.count, SHARED.count} <= reached
