"""The doors for many threads, and what of them outlives a process: over a memory that only remembers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from bearerd.grant.outcome import Issued, Refused
from bearerd.lifecycle.doors import Admission
from bearerd.lifecycle.gate import Gate
from bearerd.model import Client, RateLimit, Target
from support.clock import FakeClock
from support.process import WITHIN
from support.targets import CLIENT, target, token

A, B, C = target("a"), target("b"), target("c")
ISSUED = Issued(token())
REFUSED = Refused("HTTP 401")
KEPT = {"proven": True, "refusals": 2, "opens_in": 100.0, "attempts": [], "message": "HTTP 401", "hint": None}


def limited(name: str, window: float = 3600.0) -> Client:
    """A client with a limit of one grant in that time."""
    return replace(CLIENT, name=name, budgets=((f"client-{name}", RateLimit(1, window)),))


@dataclass
class Kept:
    """What was saved: all of it in order, and as it stands."""

    fields: dict[tuple[str, str], tuple[Mapping[str, Any], float] | None] = field(default_factory=dict)
    saved: list[tuple[str, str, Mapping[str, Any]]] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    meanwhile: Callable[[], object] = lambda: None

    def load(self, kind: str, name: str) -> tuple[Mapping[str, Any], float] | None:
        self.loaded.append(f"{kind}/{name}")
        return self.fields.get((kind, name))

    def save(self, kind: str, name: str, fields: Mapping[str, Any]) -> None:
        self.meanwhile()
        self.saved.append((kind, name, fields))

    def names(self, kind: str) -> set[str]:
        return {name for each, name in self.fields if each == kind}

    def key(self) -> bytes:
        return b"k"


def test_whoever_was_held_is_woken_but_for_the_one_who_reports() -> None:
    woken: list[str] = []
    gate = Gate(woken.append)
    gate.admit(A, 10.0, 0.0)
    for each in (A, B, C):
        gate.report(each, REFUSED, 10.0, 30.0)
    assert gate.admit(B, 11.0, 0.0) == Admission(40.0, "refused")
    assert woken == []
    gate.report(A, ISSUED, 12.0, 0.0)
    assert sorted(woken) == ["dnb/b", "dnb/c"]


def test_who_is_woken_may_come_at_once() -> None:
    came: list[Admission] = []
    gate = Gate(lambda _: came.append(gate.admit(B, 12.0, 0.0)))
    gate.admit(A, 10.0, 0.0)
    gate.admit(B, 10.0, 0.0)
    within(lambda: gate.report(A, ISSUED, 12.0, 0.0))
    assert came == [Admission(12.0)]


def test_a_grant_is_known_before_it_is_sent_and_what_it_came_to_after() -> None:
    memory, subject = Kept(), target("a", limited("dnb"))
    gate = Gate(lambda _: None, memory)
    assert gate.admit(subject, 10.0, 0.0) == Admission(10.0)
    assert memory.saved == [("budgets", "client-dnb", {"sent": [0.0]})]
    gate.report(subject, REFUSED, 11.0, 300.0)
    assert memory.saved[1:] == [
        (
            "clients",
            "dnb",
            {
                "proven": False,
                "refusals": 1,
                "opens_in": 300.0,
                "attempts": [1.0],
                "message": "HTTP 401",
                "hint": None,
            },
        )
    ]


def test_who_is_held_writes_nothing() -> None:
    memory = Kept({("clients", "dnb"): (KEPT, 0.0)})
    gate = Gate(lambda _: None, memory)
    gate.restore([A], FakeClock())
    assert gate.admit(A, 5_000.0, 0.0) == Admission(5_100.0, "refused")
    assert memory.saved == []


def test_a_client_that_is_renewed_wakes_who_was_held_and_is_forgotten() -> None:
    woken: list[str] = []
    memory = Kept({("clients", "dnb"): (KEPT, 0.0)})
    gate = Gate(woken.append, memory)
    gate.restore([A, B], FakeClock())
    for each in (A, B):
        gate.admit(each, 5_000.0, 0.0)
    gate.renew(CLIENT.name, 5_000.0)
    assert sorted(woken) == ["dnb/a", "dnb/b"]
    assert memory.saved == [("clients", "dnb", {})]
    assert gate.refusal(A) is None
    assert gate.admit(A, 5_000.0, 0.0) == Admission(5_000.0)


def test_what_was_kept_is_taken_up_with_its_age() -> None:
    subject = target("a", limited("dnb"))
    memory = Kept({("clients", "dnb"): (KEPT, 40.0), ("budgets", "client-dnb"): ({"sent": [50.0]}, 40.0)})
    gate = Gate(lambda _: None, memory)
    gate.restore([subject], FakeClock())
    assert gate.refusal(subject) == REFUSED
    assert gate.history(subject) == (True, 2)
    assert gate.admit(subject, 5_059.0, 0.0) == Admission(5_060.0, "refused")
    assert gate.admit(subject, 5_060.0, 0.0) == Admission(5_000.0 + 3600.0 - 90.0, "rate_limit")


def test_only_what_the_config_knows_is_taken_up() -> None:
    names = [("clients", "gone"), ("budgets", "client-gone"), ("budgets", "client-short"), ("clients", "dnb")]
    memory = Kept({name: ({}, 0.0) for name in names})
    Gate(lambda _: None, memory).restore([A, target("a", limited("short", 59.9))], FakeClock())
    assert memory.loaded == ["clients/dnb"]


def test_what_makes_no_sense_is_passed_over_and_the_rest_taken_up(caplog: pytest.LogCaptureFixture) -> None:
    good, bad, torn = target("a", limited("good")), target("a", limited("bad")), target("a", limited("torn"))
    memory = Kept(
        {
            ("clients", "good"): (KEPT, 0.0),
            ("clients", "bad"): (KEPT | {"refusals": float("inf")}, 0.0),
            ("budgets", "client-bad"): ({"sent": ["yesterday"]}, 0.0),
            ("clients", "torn"): None,
            ("budgets", "client-torn"): None,
        }
    )
    gate = Gate(lambda _: None, memory)
    gate.restore([good, bad, torn], FakeClock())
    assert [gate.admit(each, 5_000.0, 0.0).reason for each in (good, bad, torn)] == ["refused", "", ""]
    assert sorted(record.getMessage() for record in caplog.records) == [
        "what was kept of budgets client-bad makes no sense: it is passed over",
        "what was kept of clients bad makes no sense: it is passed over",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_of_two_at_once_the_later_is_written_last() -> None:
    shared = replace(CLIENT, budgets=(("provider-p", RateLimit(9, 3600.0)),))
    first, second = target("a", shared), target("b", replace(shared, name="other"))
    memory, done = Kept(), threading.Event()
    gate = Gate(lambda _: None, memory)

    def ask_too() -> None:
        gate.admit(second, 20.0, 0.0)
        done.set()

    other = threading.Thread(target=ask_too)

    def meanwhile() -> None:
        memory.meanwhile = lambda: None
        other.start()
        done.wait(0.3)  # it may not come to its end before the first has written

    memory.meanwhile = meanwhile
    gate.admit(first, 10.0, 0.0)
    other.join(WITHIN)
    assert memory.saved == [("budgets", "provider-p", {"sent": ages}) for ages in ([0.0], [10.0, 0.0])]


def test_a_disk_that_is_slow_holds_nobody_up_who_writes_nothing() -> None:
    memory, answers = Kept(), list[object]()
    gate = Gate(lambda _: None, memory)

    def look(subject: Target) -> None:
        answers.extend((gate.refusal(subject), gate.admit(subject, 10.0, 0.0).reason))

    memory.meanwhile = lambda: within(lambda: look(B))
    gate.admit(A, 10.0, 0.0)
    gate.report(A, REFUSED, 10.0, 30.0)
    assert answers == [REFUSED, "refused"]


def within(act: Callable[[], object]) -> None:
    """Do it in a thread, since what is looked for may lock up."""
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(WITHIN)
    assert not thread.is_alive()
