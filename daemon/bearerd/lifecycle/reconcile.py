"""Keeps the running controllers in line with the wanted targets: one map of targets, and one inbox for each.

Invariants, which `problems` checks and the tests assert:

- Once no turn is due, every wanted name has exactly one controller and exactly one scheduled turn.
- An unwanted name has no controller, no turn, no record, no files and no wishes.
- A turn changes only its own target. Two turns of one target never run at once.
- A wish is handled by a turn that starts after the wish arrived. No wish is lost, whatever a turn does meanwhile.
- No lock is held during access to files, secrets or the network. Locks are taken in one order: this module's, the
  schedule's, APScheduler's.

Only a target's own turn creates and drops its controller. A turn of an unwanted target removes its files without the
lock, and then checks under the lock. If the target is wanted again by then, the next turn starts from scratch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from math import inf
from typing import Generic, Protocol, TypeVar

from bearerd.lifecycle.wishes import Leftover, Wish
from bearerd.model import Target
from bearerd.target_status import TargetStatus


class TargetController(Protocol):
    """Drives one target (controller.py)."""

    target: Target

    def reconcile(self, target: Target, wishes: Iterable[Wish], wanted_paths: Callable[[], Collection[str]]) -> float:
        """Drive the target to its desired state. Returns when (boot clock) the next turn is needed."""
        ...

    def withdraw(self, wishes: Iterable[Wish], wanted_paths: Callable[[], Collection[str]]) -> None:
        """Remove the target's record and files."""
        ...

    def status(self) -> TargetStatus:
        """A snapshot of the target."""
        ...


class Turns(Protocol):
    """Runs the turns of each target (schedule.py)."""

    def add(self, name: str, due: float) -> None:
        """Add a target, or move the next turn of a known one forward."""
        ...

    def remove(self, name: str) -> None:
        """Schedule no more turns for this target."""
        ...

    def wake(self, name: str, at: float | None = None) -> None:
        """Schedule a turn by this time, or now. If a turn is running, another one follows."""
        ...

    def names(self) -> set[str]:
        """The targets that have turns."""
        ...


C = TypeVar("C", bound=TargetController)


class Reconciler(Generic[C]):
    """The wanted targets and their controllers. `make` creates a controller, quickly and without I/O."""

    def __init__(self, make: Callable[[Target], C], turns: Turns, now: Callable[[], float]) -> None:
        self._make = make
        self._turns = turns
        self._now = now
        self._lock = threading.Lock()
        self._wanted: dict[str, Target] = {}
        self._paths: frozenset[str] = frozenset()
        self._controllers: dict[str, C] = {}
        self._inbox: dict[str, set[Wish]] = {}

    def apply(self, targets: Iterable[Target]) -> None:
        """Replace the wanted targets, and schedule a turn for each one that differs."""
        wanted = {target.full_name: target for target in targets}
        with self._lock:
            before, self._wanted = self._wanted, wanted
            self._paths = frozenset(output.path for target in wanted.values() for output in target.outputs)
            different = [name for name in {**before, **wanted} if before.get(name) != wanted.get(name)]
            for name in different:
                if name in before and name not in self._controllers:
                    self._inbox.setdefault(name, set()).add(Leftover(before[name]))
        for name in different:
            if name in wanted:
                self._turns.add(name, self._now())
            else:
                self._turns.wake(name)

    def wish(self, name: str, wish: Wish) -> None:
        """Put a wish into the target's inbox, if the target is wanted."""
        with self._lock:
            if name not in self._wanted:
                return
            self._inbox.setdefault(name, set()).add(wish)
        self._turns.wake(name)

    def turn(self, name: str) -> float:
        """Run one turn of a target, on a worker thread. Returns when (boot clock) the next one is due."""
        with self._lock:
            wishes = self._inbox.get(name, set())
            target, controller = self._wanted.get(name), self._controllers.get(name)
            # No turn applied that config, but its files may exist from an earlier process.
            left = [wish.target for wish in wishes if isinstance(wish, Leftover)]
            begins_as = left[0] if left else target
            if controller is None and begins_as is not None:
                controller = self._controllers[name] = self._make(begins_as)
            self._inbox.pop(name, None)  # only now: without memory for a controller, they stay
        try:
            return self._turn(name, target, controller, wishes)
        except BaseException:
            if wishes:
                with self._lock:
                    self._inbox.setdefault(name, set()).update(wishes)
            raise

    def _turn(self, name: str, target: Target | None, controller: C | None, wishes: Collection[Wish]) -> float:
        if target is not None and controller is not None:
            due = controller.reconcile(target, wishes, self._wanted_paths)
            with self._lock:
                same = self._wanted.get(name) is target and name not in self._inbox
            return due if same else self._now()
        if controller is not None:
            controller.withdraw(wishes, self._wanted_paths)
        with self._lock:
            self._controllers.pop(name, None)
            if name in self._wanted:
                return self._now()
            self._inbox.pop(name, None)
            self._turns.remove(name)
            return inf

    def controller(self, name: str) -> C | None:
        """The controller of a wanted target; None before its first turn."""
        with self._lock:
            return self._controllers.get(name) if name in self._wanted else None

    def is_wanted(self, name: str) -> bool:
        """Whether a target of this name is wanted."""
        return name in self._wanted

    def statuses(self) -> Iterator[TargetStatus]:
        """Snapshots of all wanted targets in the order of the config, including those without a turn yet."""
        with self._lock:
            pairs = [(target, self._controllers.get(name)) for name, target in self._wanted.items()]
        for target, controller in pairs:
            yield controller.status() if controller is not None else TargetStatus(target)

    def problems(self) -> list[str]:
        """The violated invariants. Call it while no turn is due."""
        with self._lock:
            wanted, controllers, inbox = set(self._wanted), set(self._controllers), set(self._inbox)
        turns = self._turns.names()
        found = [f"{name}: wanted, without a controller" for name in wanted - controllers]
        found += [f"{name}: wanted, without a turn" for name in wanted - turns]
        found += [f"{name}: not wanted, with a controller" for name in controllers - wanted]
        found += [f"{name}: not wanted, with a turn" for name in turns - wanted]
        return found + [f"{name}: a wish that no turn handles" for name in inbox]

    def _wanted_paths(self) -> frozenset[str]:
        return self._paths
