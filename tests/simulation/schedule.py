"""Turns in simulated time, in place of APScheduler: `lifecycle/schedule` has tests of its own.

One thing is left out on purpose: the turn that every target has once an hour whatever happens. A wake that is lost
shows as a target that never has a turn again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf

from simulation.kernel import Clock, Kernel


class Schedule:
    """Gives each target its turns, on at most `workers` at a time, first come first served."""

    def __init__(
        self, kernel: Kernel, clock: Clock, turn: Callable[[str], float], workers: int, cost: float = 0.0
    ) -> None:
        """`cost` is how many seconds of the one CPU each turn takes."""
        self._kernel = kernel
        self._clock = clock
        self._turn = turn
        self._workers = workers
        self._cost = cost
        self._cpu_free = 0.0
        self._due: dict[str, float] = {}
        self._running: set[str] = set()
        self._queue: deque[str] = deque()
        self._stopped = False
        self.began: dict[str, float] = {}
        """By target: the kernel's time of its last turn."""
        self._deaf_until = 0.0
        self._seen = self._reading()

    # -- as lifecycle/schedule -------------------------------------------------------------------

    def resize(self, workers: int) -> None:
        """So many workers, if that is more than before."""
        self._workers = max(self._workers, workers)

    def add(self, name: str, due: float) -> None:
        """A target; one that is there already has its next turn by then, too."""
        self._due.setdefault(name, inf)
        self._set(name, due)

    def remove(self, name: str) -> None:
        """No more turns for this target."""
        self._due.pop(name, None)

    def names(self) -> set[str]:
        """The targets that have turns."""
        return set(self._due)

    def start(self) -> None:
        """Turns are given from the first moment on."""

    def stop(self, within: float) -> bool:  # noqa: ARG002 - as lifecycle/schedule
        """Give no more turns."""
        self._stopped = True
        return not self._running

    def wake(self, name: str, at: float | None = None) -> None:
        """A turn at that moment at the latest, else now; if one is under way, another after it."""
        self._set(name, self._clock.now().boot if at is None else at)

    def tick(self) -> bool:
        """Notice a clock that was set and a suspend: all targets have a turn then."""
        seen = self._reading()
        stepped = any(abs(now - before) > 1.0 for now, before in zip(seen, self._seen, strict=True))
        if stepped:
            self._seen = seen
            for name in self._due:
                self.wake(name)
        return stepped

    def alive(self) -> bool:
        """Turns are given."""
        return not self._stopped

    # -- for the world ---------------------------------------------------------------------------

    def deafen(self, until: float) -> None:
        """No turn before that moment of the kernel: the machine sleeps, or a clock was set and nobody looked yet."""
        self._deaf_until = max(self._deaf_until, until)

    def next_due(self) -> float:
        """The boot clock's moment of the next turn."""
        return min(self._due.values(), default=inf)

    def due_of(self, name: str) -> float | None:
        """When (boot clock) the target's next turn is; None without one; -inf while one is under way."""
        return -inf if name in self._running or name in self._queue else self._due.get(name)

    @property
    def busy(self) -> bool:
        """Whether turns are under way or wait for a worker."""
        return bool(self._running or self._queue)

    # -- inside ----------------------------------------------------------------------------------

    def _reading(self) -> tuple[float, float]:
        now = self._clock.now()
        return now.wall - now.boot, self._clock.suspended()

    def _set(self, name: str, due: float) -> None:
        if name in self._due and due < self._due[name]:
            self._due[name] = due
            if name not in self._running:
                self._arm(name, due)

    def _arm(self, name: str, due: float) -> None:
        if due < inf:
            self._kernel.at(self._clock.moment(due), partial(self._fire, name, due))

    def _fire(self, name: str, due: float) -> None:
        """The moment of a turn has come; of several only the one that still counts gives a turn."""
        if self._stopped or self._due.get(name) != due or name in self._running:
            return
        if self._kernel.now < self._deaf_until:
            self._kernel.at(self._deaf_until, partial(self._fire, name, due))
            return
        self._due[name] = inf
        self._running.add(name)
        self._queue.append(name)
        self._serve()

    def _serve(self) -> None:
        while self._queue and len(self._running) - len(self._queue) < self._workers:
            name = self._queue.popleft()
            if self._cost:
                self._cpu_free = max(self._cpu_free, self._kernel.now) + self._cost
                self._kernel.at(self._cpu_free, partial(self._run, name))
            else:
                self._run(name)

    def _run(self, name: str) -> None:
        if self._stopped:
            return
        self.began[name] = self._kernel.now
        due = self._turn(name)
        self._running.discard(name)
        if name in self._due and self.alive():
            self._due[name] = min(due, self._due[name])
            self._arm(name, self._due[name])
        if self._queue:
            self._kernel.at(self._kernel.now, self._serve)
