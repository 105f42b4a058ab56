"""Wanted targets, their controllers and inboxes: every order of events ends in the desired state."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import inf
from random import Random

import pytest

from bearerd.clock import SystemClock
from bearerd.lifecycle.reconcile import Reconciler
from bearerd.lifecycle.schedule import Schedule
from bearerd.lifecycle.wishes import CredentialsChanged, Leftover, RefreshRequested, TemplateChanged, Wish
from bearerd.model import Output, Target
from bearerd.target_status import TargetStatus
from support.process import eventually
from support.targets import target

WITHIN = 20.0
A, B = target("a", outputs=(Output("/t/a"),)), target("b", outputs=(Output("/t/b"),))


@dataclass
class Disk:
    """The files on disk and their owners."""

    files: dict[str, str] = field(default_factory=dict)
    records: set[str] = field(default_factory=set)


class Simple:
    """A controller that only manages the files of its target."""

    before: Callable[[str], None] = staticmethod(lambda _: None)

    def __init__(self, target: Target, disk: Disk) -> None:
        self.target = target
        self.disk = disk
        self.wishes: list[Wish] = []
        self.busy = threading.Lock()
        self.due = 0.0

    def reconcile(self, target: Target, wishes: Iterable[Wish], wanted_paths: Callable[[], Collection[str]]) -> float:
        assert self.busy.acquire(blocking=False), "two turns of one target at once"
        try:
            self.before(target.full_name)
            old, self.target = self.target, target
            self.wishes += wishes
            for gone in (old, *(wish.target for wish in wishes if isinstance(wish, Leftover))):
                self._remove(gone, wanted_paths)
            for output in target.outputs:
                self.disk.files[output.path] = target.full_name
            self.disk.records.add(target.full_name)
            return inf
        finally:
            self.busy.release()

    def withdraw(self, wishes: Iterable[Wish], wanted_paths: Callable[[], Collection[str]]) -> None:
        assert self.busy.acquire(blocking=False), "two turns of one target at once"
        try:
            self.before(self.target.full_name)
            self.disk.records.discard(self.target.full_name)
            for gone in (self.target, *(wish.target for wish in wishes if isinstance(wish, Leftover))):
                self._remove(gone, wanted_paths)
        finally:
            self.busy.release()

    def status(self) -> TargetStatus:
        return TargetStatus(self.target, due=self.due)

    def _remove(self, gone: Target, wanted_paths: Callable[[], Collection[str]]) -> None:
        for output in gone.outputs:
            if output.path not in wanted_paths():
                self.disk.files.pop(output.path, None)


@dataclass
class World:
    reconciler: Reconciler[Simple]
    disk: Disk
    schedule: Schedule

    def settled(self) -> bool:
        return not self.reconciler.problems()

    def names(self) -> list[str]:
        return [target_status.name for target_status in self.reconciler.statuses()]


@contextmanager
def world(before: Callable[[str], None] = lambda _: None) -> Iterator[World]:
    disk, clock = Disk(), SystemClock()

    def make(target: Target) -> Simple:
        made = Simple(target, disk)
        made.before = before
        return made

    schedule = Schedule(clock, lambda name: reconciler.turn(name), 4)  # noqa: PLW0108 - it is made below
    reconciler = Reconciler(make, schedule, lambda: clock.now().boot)
    schedule.start()
    try:
        yield World(reconciler, disk, schedule)
    finally:
        schedule.stop(5)


def test_wanted_targets_have_a_controller_and_a_turn_and_unwanted_ones_have_nothing() -> None:
    with world() as here:
        here.reconciler.apply([A, B])
        eventually(lambda: here.disk.files == {"/t/a": "dnb/a", "/t/b": "dnb/b"} and here.settled())
        here.reconciler.apply([B])
        eventually(lambda: here.disk == Disk({"/t/b": "dnb/b"}, {"dnb/b"}) and here.settled())
        assert here.names() == ["dnb/b"]
        assert here.reconciler.controller("dnb/a") is None
        assert [here.reconciler.is_wanted(name) for name in ("dnb/a", "dnb/b")] == [False, True]


def test_a_target_added_again_while_its_files_are_being_removed_is_restored() -> None:
    deleting, may_go_on = threading.Event(), threading.Event()

    def before(name: str) -> None:
        if name == "dnb/a" and not here.reconciler.is_wanted(name):
            deleting.set()
            assert may_go_on.wait(WITHIN)

    with world(before) as here:
        here.reconciler.apply([A])
        eventually(lambda: "dnb/a" in here.disk.records)
        here.reconciler.apply([])
        assert deleting.wait(WITHIN)
        here.reconciler.apply([A])
        may_go_on.set()
        eventually(lambda: here.disk == Disk({"/t/a": "dnb/a"}, {"dnb/a"}) and here.settled())
        assert here.names() == ["dnb/a"]


def test_a_target_has_a_status_before_its_first_turn() -> None:
    with world() as here:
        here.schedule.stop(5)
        here.reconciler.apply([A, B])
        assert [target_status.expires for target_status in here.reconciler.statuses()] == [None, None]
        assert here.names() == ["dnb/a", "dnb/b"]


def test_wishes_during_a_turn_are_handled_together_by_the_next_turn() -> None:
    inside, may_go_on = threading.Event(), threading.Event()

    def before(_: str) -> None:
        inside.set()
        assert may_go_on.wait(WITHIN)

    with world(before) as here:
        here.reconciler.apply([A])
        assert inside.wait(WITHIN)
        for _ in range(100):
            here.reconciler.wish("dnb/a", CredentialsChanged())
            here.reconciler.wish("dnb/a", TemplateChanged())
        here.reconciler.wish("dnb/a", RefreshRequested("0" * 16))
        here.reconciler.wish("dnb/b", TemplateChanged())  # not a wanted target
        may_go_on.set()
        eventually(here.settled)
        controller = here.reconciler.controller("dnb/a")
        assert controller is not None
        wished = {CredentialsChanged(), TemplateChanged(), RefreshRequested("0" * 16)}
        eventually(lambda: (set(controller.wishes), len(controller.wishes)) == (wished, 3))


def test_a_turn_that_raises_keeps_its_wishes() -> None:
    raised = threading.Event()

    def before(_: str) -> None:
        if not raised.is_set():
            raised.set()
            raise ValueError

    with world(before) as here:
        here.schedule.stop(5)
        here.reconciler.apply([A])
        here.reconciler.wish("dnb/a", TemplateChanged())
        with pytest.raises(ValueError, match=r"^$"):
            here.reconciler.turn("dnb/a")
        here.reconciler.turn("dnb/a")
        controller = here.reconciler.controller("dnb/a")
        assert controller is not None
        assert controller.wishes == [TemplateChanged()]


def test_files_of_a_config_that_no_turn_applied_are_removed() -> None:
    with world() as here:
        here.schedule.stop(5)
        here.disk.files |= {"/t/a": "an earlier process", "/t/old": "an earlier process"}
        here.reconciler.apply([replace(A, outputs=(Output("/t/old"),))])
        here.reconciler.apply([A])
        here.reconciler.turn("dnb/a")
        assert here.disk.files == {"/t/a": "dnb/a"}


def test_a_path_that_moves_to_another_target_is_not_removed() -> None:
    with world() as here:
        here.reconciler.apply([A, B])
        eventually(here.settled)
        here.reconciler.apply([replace(B, outputs=(Output("/t/a"), Output("/t/b")))])
        eventually(lambda: here.settled() and here.disk.records == {"dnb/b"})
        assert here.disk.files == {"/t/a": "dnb/b", "/t/b": "dnb/b"}


@dataclass
class Told:
    """What the reconciler tells the schedule; no turn runs by itself."""

    turns: set[str] = field(default_factory=set)
    calls: list[tuple[str, ...]] = field(default_factory=list)

    def add(self, name: str, due: float) -> None:
        self.turns.add(name)
        self.calls.append(("add", name, str(due)))

    def remove(self, name: str) -> None:
        self.turns.discard(name)
        self.calls.append(("remove", name))

    def wake(self, name: str, at: float | None = None) -> None:
        assert at is None
        self.calls.append(("wake", name))

    def names(self) -> set[str]:
        return self.turns

    def since(self) -> list[tuple[str, ...]]:
        """The calls since the last look."""
        calls, self.calls = self.calls, []
        return calls


class Stepped:
    """A reconciler whose turns are run one by one, at time 50."""

    def __init__(self) -> None:
        self.told, self.disk = Told(), Disk()
        self.during: Callable[[], None] = lambda: None
        self.reconciler: Reconciler[Simple] = Reconciler(self._make, self.told, lambda: 50.0)

    def _make(self, target: Target) -> Simple:
        made = Simple(target, self.disk)
        made.before = lambda _: self.during()
        return made

    def turn(self, during: Callable[[], None] = lambda: None) -> float:
        """One turn of A, and what happens meanwhile."""
        self.during = during
        return self.reconciler.turn("dnb/a")


def test_a_turn_is_scheduled_for_each_target_that_differs_and_for_each_wish() -> None:
    here = Stepped()
    here.reconciler.apply([A, B])
    assert here.told.since() == [("add", "dnb/a", "50.0"), ("add", "dnb/b", "50.0")]
    here.reconciler.wish("dnb/a", TemplateChanged())
    here.reconciler.wish("dnb/c", TemplateChanged())
    assert here.told.since() == [("wake", "dnb/a")]
    assert here.turn() == inf
    here.reconciler.apply([B])
    assert here.told.since() == [("wake", "dnb/a")]
    assert here.turn() == inf
    assert here.told.since() == [("remove", "dnb/a")]


def test_another_turn_is_due_at_once_for_anything_that_arrives_during_a_turn() -> None:
    here = Stepped()
    here.reconciler.apply([A])
    assert here.turn(lambda: here.reconciler.wish("dnb/a", TemplateChanged())) == 50.0
    assert here.turn(lambda: here.reconciler.apply([replace(A, outputs=())])) == 50.0
    assert here.turn() == inf
    here.reconciler.apply([])
    assert here.turn(lambda: here.reconciler.apply([A])) == 50.0
    assert "dnb/a" in here.told.turns
    assert here.turn() == inf
    assert here.reconciler.problems() == []


def test_nothing_is_left_of_a_target_that_was_wanted_for_a_moment_while_it_was_removed() -> None:
    here = Stepped()

    def meanwhile() -> None:
        here.reconciler.apply([A])
        here.reconciler.wish("dnb/a", TemplateChanged())
        here.reconciler.apply([])

    here.reconciler.apply([A])
    here.turn()
    here.reconciler.apply([])
    assert here.reconciler.controller("dnb/a") is None
    assert here.turn(meanwhile) == inf
    assert (here.disk, here.reconciler.problems()) == (Disk(), [])


def test_files_of_targets_that_no_turn_applied_are_removed_with_the_target_even_if_a_turn_fails() -> None:
    here = Stepped()

    def fails() -> None:
        raise ValueError

    here.disk.files |= {"/t/a": "an earlier process", "/t/old": "an earlier process"}
    here.reconciler.apply([replace(A, outputs=(Output("/t/old"),))])
    here.reconciler.apply([A])
    here.reconciler.apply([])
    with pytest.raises(ValueError, match=r"^$"):
        here.turn(fails)
    assert here.turn() == inf
    assert (here.disk, here.reconciler.problems()) == (Disk(), [])


@pytest.mark.parametrize("wanted", [True, False])
def test_without_memory_for_a_controller_all_is_left_to_the_next_turn(
    monkeypatch: pytest.MonkeyPatch, *, wanted: bool
) -> None:
    def fails(_: Target) -> Simple:
        raise MemoryError

    here = Stepped()
    here.disk.files["/t/old"] = "an earlier process"
    here.reconciler.apply([replace(A, outputs=(Output("/t/old"),))])
    here.reconciler.apply([A] if wanted else [])
    here.reconciler.wish("dnb/a", TemplateChanged())
    with monkeypatch.context() as patch:
        patch.setattr(here.reconciler, "_make", fails)
        with pytest.raises(MemoryError):
            here.turn()
    assert here.turn() == inf
    assert here.disk.files == ({"/t/a": "dnb/a"} if wanted else {})
    controller = here.reconciler.controller("dnb/a")
    assert (controller is not None and TemplateChanged() in controller.wishes) is wanted
    assert here.reconciler.problems() == []


def test_a_turn_of_an_unknown_target_is_the_last_one() -> None:
    here = Stepped()
    assert here.turn() == inf
    assert here.told.since() == [("remove", "dnb/a")]


def test_the_status_of_a_target_is_that_of_its_controller() -> None:
    here = Stepped()
    here.reconciler.apply([A])
    here.turn()
    controller = here.reconciler.controller("dnb/a")
    assert controller is not None
    controller.due = 70.0
    assert [target_status.due for target_status in here.reconciler.statuses()] == [70.0]


def test_each_broken_invariant_is_named() -> None:
    here = Stepped()
    here.reconciler.apply([A])
    here.turn()
    here.reconciler.apply([B])
    here.told.turns = {"dnb/a"}
    here.reconciler.wish("dnb/b", TemplateChanged())
    assert here.reconciler.problems() == [
        "dnb/b: wanted, without a controller",
        "dnb/b: wanted, without a turn",
        "dnb/a: not wanted, with a controller",
        "dnb/a: not wanted, with a turn",
        "dnb/b: a wish that no turn handles",
    ]


@pytest.mark.parametrize("seed", range(10))
def test_after_any_sequence_of_configs_the_last_one_is_in_effect(seed: int) -> None:
    dice = Random(seed)
    names = [f"t{number}" for number in range(6)]
    with world() as here:
        for _ in range(60):
            wanted = [
                target(name, outputs=(Output(f"/t/{name}-{dice.randint(0, 1)}"),))
                for name in names
                if dice.random() < 0.6
            ]
            here.reconciler.apply(wanted)
            for name in names:
                here.reconciler.wish(f"dnb/{name}", TemplateChanged())
        eventually(here.settled)
        files = {output.path: one.full_name for one in wanted for output in one.outputs}
        eventually(lambda: here.disk == Disk(files, {one.full_name for one in wanted}))
        assert here.names() == [one.full_name for one in wanted]
