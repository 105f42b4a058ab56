"""Runs the turns of each target when they are due, never two of one target at once. A thread that hangs is replaced."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from math import inf
from typing import Final

from bearerd.clock import Clock
from bearerd.errors import Stopping, unexpected
from bearerd.handoff import RunQueue
from bearerd.lifecycle.jobs import Jobs
from bearerd.lifecycle.policy import LONGEST_WAIT
from bearerd.log import say

CHECK_CLOCKS_EVERY: Final = 8.0
"""Seconds between two comparisons of the clocks: a step or a suspend has to be noticed within 10 s."""

# The wall clock is slewed at up to 0.5 ms per second. Turns are rescheduled when it is off by this much.
_DRIFT: Final = 1.0
# A busy machine submits turns a second or two late. A scheduler that hangs submits none.
_OVERDUE: Final = 30.0
# The lock is held while 10,000 turns are submitted, which takes about a second.
_LOCK_WITHIN: Final = 3.0
# A turn that raised does not say when the next one is due. A bug costs a minute, not the target.
_AFTER_EXCEPTION: Final = 60.0
# The job that looks for a stuck thread. Names of targets contain a slash.
_RELIEF: Final = "relief"
# Each target of a hanging file system takes a thread. Beyond this many the others would hang as well.
_MOST_THREADS: Final = 1024


class Schedule:
    """Calls `turn(name)` for each target when it is due, on at most `workers` threads, never twice at once.

    All times are those of the boot clock. `turn` returns when the next turn is due; `inf` if only `wake` schedules one.
    """

    def __init__(self, clock: Clock, turn: Callable[[str], float], workers: int) -> None:
        self._clock = clock
        self._turn = turn
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)
        self._due: dict[str, float] = {}
        """By target with a job: when its next turn is due; during a turn, when another one was requested."""
        self._running: set[str] = set()
        self._stopped = False
        self._lacked_memory = False
        """Whether a turn, or what follows it, ended for lack of memory."""
        self._workers = 0
        self._threads = 0
        """The number of threads that all pools together may start."""
        self._jobs = Jobs(self._run, self._lack_memory)
        self._queue = RunQueue(self._start, self._relieve_in)
        self._offset = self._wall_offset()
        self._suspended = clock.suspended()
        self.resize(workers)
        # A separate job: those of the targets are moved by their turns.
        self._jobs.put(_RELIEF, clock.now().wall + LONGEST_WAIT)

    def resize(self, workers: int) -> None:
        """Raise the number of threads; a lower number changes nothing."""
        with self._lock:
            if workers > self._workers:
                self._workers = workers
                self._add_pool()

    def add(self, name: str, due: float) -> None:
        """Add a target, or move the next turn of a known one forward."""
        with self._lock:
            if name in self._due:
                self._set(name, due)
                return
            self._due[name] = due
            self._jobs.put(name, self._wall(due))

    def remove(self, name: str) -> None:
        """Schedule no more turns for this target. A running turn continues to its end."""
        with self._lock:
            if self._due.pop(name, None) is not None:
                self._jobs.remove(name)

    def names(self) -> set[str]:
        """The names of the targets that have turns."""
        with self._lock:
            return set(self._due)

    def start(self) -> None:
        """Start the scheduler. Turns that are due run at once."""
        self._jobs.start()

    def stop(self, within: float) -> bool:
        """Stop scheduling turns. Returns whether the running ones ended within this many seconds."""
        with self._lock:
            self._stopped = True
        self._jobs.stop()
        with self._ended:
            return self._ended.wait_for(lambda: not self._running, within)

    def wake(self, name: str, at: float | None = None) -> None:
        """Schedule a turn by this time, or now. If a turn is running, another one follows."""
        with self._lock:
            self._set(name, self._clock.now().boot if at is None else at)

    def tick(self) -> bool:
        """Call it every `CHECK_CLOCKS_EVERY` seconds.

        It reschedules all turns after a step of the wall clock, a suspend or a lack of memory, and starts threads that
        could not be started. Returns whether there was a step or a suspend.
        """
        if not self._jobs.tick():
            say(logging.ERROR, "no thread can be started; raise TasksMax, or lower max_concurrency")
        lacked, self._lacked_memory = self._lacked_memory, False
        offset, suspended, now = self._wall_offset(), self._clock.suspended(), self._clock.now().boot
        stepped = abs(offset - self._offset) > _DRIFT or abs(suspended - self._suspended) > _DRIFT
        if stepped:
            self._offset, self._suspended = offset, suspended
        with self._lock:
            # Every target has to check its own times.
            for name in list(self._due) if stepped or lacked else ():
                self._due[name] = min(self._due[name], now)
                if name not in self._running:
                    self._move(name, self._due[name])
        if stepped or lacked:
            self._relieve_in(0.0)
        if stepped:
            self._jobs.wake()  # for targets whose turn is running
        return stepped

    def alive(self) -> bool:
        """Whether the scheduler works: its thread runs, and no turn has been due for long.

        A due turn is submitted to the pool, however busy the pool is, and its job then moves an hour ahead.
        """
        if not self._jobs.alive():
            return False
        if not self._lock.acquire(timeout=_LOCK_WITHIN):
            return False  # another thread has been waiting for the scheduler's own lock
        self._lock.release()
        return self._clock.now().wall - self._jobs.earliest() < _OVERDUE

    # -- inside --------------------------------------------------------------------------------

    def _run(self, name: str) -> None:
        """On a thread of the pool: run a turn and those queued after it, or take over from a stuck thread."""
        try:
            if name == _RELIEF:
                self._serve(self._queue.relieve())
            elif self._queue.enter(name):
                self._serve(name)
        except MemoryError:
            # Between two turns, so that the next turn of a target may be lost.
            self._lack_memory()
            self._queue.abandon()

    def _lack_memory(self) -> None:
        """Let all targets have a turn at the next tick."""
        self._lacked_memory = True

    def _serve(self, following: str | None) -> None:
        while following is not None:
            self._replace_stuck_threads()
            self._run_turn(following)
            following = self._queue.next()

    def _run_turn(self, name: str) -> None:
        due = self._clock.now().boot + _AFTER_EXCEPTION
        with self._lock:
            if self._stopped or name in self._running or name not in self._due:
                return
            self._running.add(name)
            self._due[name] = inf
        try:
            due = self._turn(name)
        except Stopping:
            pass  # nothing was sent, and the next process makes the attempt
        except Exception as error:  # noqa: BLE001 - a bug costs a minute, not the target
            self._lacked_memory |= isinstance(error, MemoryError)
            say(logging.ERROR, f"a turn failed: {unexpected(error)}", name=name)
        finally:
            with self._lock:
                self._running.discard(name)
                if name in self._due:  # not removed meanwhile
                    self._due[name] = min(due, self._due[name])
                    self._move(name, self._due[name])
                self._ended.notify_all()

    def _add_pool(self) -> None:
        """Run all turns in a new pool from now on. Needs the lock."""
        self._threads += self._workers
        self._jobs.add_pool(self._workers)

    def _replace_stuck_threads(self) -> None:
        """Add a pool if many threads hang. Its threads are only started when they are needed."""
        if self._queue.stuck < self._many() or self._threads >= _MOST_THREADS:
            return
        with self._lock:
            if (stuck := self._queue.stuck) < self._many() or self._stopped:
                return
            self._add_pool()
        say(
            logging.WARNING,
            f"{stuck} tokens are stuck, probably on a file system that does not answer; "
            "the other tokens are not affected",
        )

    def _many(self) -> float:
        # The others may all wait for the network. One slow turn is no reason.
        return max(2.0, self._threads / 4)

    def _set(self, name: str, due: float) -> None:
        """Schedule a turn by this time. Needs the lock, so that the earlier of two calls also wins in the scheduler."""
        if name in self._due and due < self._due[name]:
            self._due[name] = due
            try:
                if name not in self._running and not (due <= self._clock.now().boot and self._queue.offer(name)):
                    self._move(name, due)
            except MemoryError:
                self._lack_memory()
                raise

    def _start(self, name: str) -> bool:
        return self._move(name, self._clock.now().boot)

    def _relieve_in(self, seconds: float) -> None:
        self._move(_RELIEF, self._clock.now().boot + seconds)

    def _move(self, name: str, due: float) -> bool:
        """Tell the scheduler when the next turn is due. Returns False if it has no such job."""
        try:
            return not self._stopped and self._jobs.move(name, self._wall(due))
        except MemoryError:
            self._lack_memory()
            raise

    def _wall(self, due: float) -> float:
        now = self._clock.now()
        return now.wall + min(due - now.boot, LONGEST_WAIT)

    def _wall_offset(self) -> float:
        now = self._clock.now()
        return now.wall - now.boot
