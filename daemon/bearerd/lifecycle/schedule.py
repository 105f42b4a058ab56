"""Runs the turns of each target.

This is the one module that uses APScheduler (3.11). It works around these properties:

- A late date job is deleted, and an exception before it is rescheduled loses it for ever. So each target has one
  recurring job, whose next run a turn moves. An error costs one interval at most.
- A job takes half a kilobyte, and moving one in the memory store sorts a list. So the job store is our own: it holds a
  name and a time for each target, and makes the job when it is due, as APScheduler's stores in databases do.
- An interval job computes every run that it missed, under the scheduler's lock. After a step from 1970 that is half a
  million runs per target. So the trigger is our own, and never catches up.
- A job counts as late as soon as its workers are busy. So `misfire_grace_time` is None.
- A run that is due while the last one is still registered is skipped, unless `max_instances` allows more. It does, and
  this module keeps a target's turns from overlapping, with one set under one lock.
- The scheduler computes its sleep from the wall clock once, and sleeps on a monotonic clock that stops in a suspend. So
  `check_clocks`, called every few seconds, compares the clocks and reschedules all runs.
- `shutdown(wait=True)` deadlocks with jobs that use the store, so it is not used. The pool would join its threads when
  the interpreter ends; the process ends by `os._exit` before that.
- A pool that cannot start a thread keeps the run and raises. The run has no worker until another one is started. So
  `check_clocks` submits another run if the pool has no thread at all. An extra turn costs only a check.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from math import inf
from typing import Any, Final

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.job import Job
from apscheduler.jobstores.base import BaseJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from bearerd.clock import Clock
from bearerd.errors import origin_of
from bearerd.handoff import RunQueue
from bearerd.lifecycle.due_times import DueTimes
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
_THREADS: Final = "turn"
_numbers: Final = count(1)
# The job that looks for a stuck thread. Names of targets contain a slash.
_RELIEF: Final = "relief"
# Each target of a hanging file system takes a thread. Beyond this many the others would hang as well.
_MOST_THREADS: Final = 1024
# Per target. A run that finds another one running ends at once.
_MOST_INSTANCES: Final = 1000


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
        self._pools = 0
        self._workers = 0
        self._threads = 0
        """That all pools may start."""
        self._scheduler = BackgroundScheduler(timezone=UTC)
        self._jobs = _JobStore(self._run)
        self._scheduler.add_jobstore(self._jobs)
        self._queue = RunQueue(self._start, self._relieve_in)
        # A process may have several schedules, one after another.
        self._threads_named = f"{_THREADS}-{next(_numbers)}-"
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
        self._scheduler.start()

    def stop(self, within: float) -> bool:
        """Stop scheduling turns. Returns whether the running ones ended within this many seconds."""
        with self._lock:
            self._stopped = True
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        with self._ended:
            return self._ended.wait_for(lambda: not self._running, within)

    def wake(self, name: str, at: float | None = None) -> None:
        """Schedule a turn by this time, or now. If a turn is running, another one follows."""
        with self._lock:
            self._set(name, self._clock.now().boot if at is None else at)

    def check_clocks(self) -> bool:
        """Reschedule all turns after a step of the wall clock or a suspend. Returns whether there was one."""
        offset, suspended, now = self._wall_offset(), self._clock.suspended(), self._clock.now().boot
        stepped = abs(offset - self._offset) > _DRIFT or abs(suspended - self._suspended) > _DRIFT
        if stepped:
            self._offset, self._suspended = offset, suspended
        with self._lock:
            # After a step every target has to check its own times.
            for name in list(self._due) if stepped else self._without_thread(now):
                self._due[name] = min(self._due[name], now)
                if name not in self._running:
                    self._move(name, self._due[name])
        if stepped:
            self._relieve_in(0.0)
            self._scheduler.wakeup()  # for targets whose turn is running
        return stepped

    def alive(self) -> bool:
        """Whether the scheduler works: its thread runs, and no turn has been due for long.

        A due turn is submitted to the pool, however busy the pool is, and its job then moves an hour ahead.
        """
        # Private: the scheduler's own `running` stays true when an exception ends its thread.
        thread = getattr(self._scheduler, "_thread", None)
        if thread is None or not thread.is_alive():
            return False
        if not self._lock.acquire(timeout=_LOCK_WITHIN):
            return False  # another thread has been waiting for the scheduler's own lock
        self._lock.release()
        return self._clock.now().wall - self._jobs.earliest() < _OVERDUE

    # -- inside --------------------------------------------------------------------------------

    def _run(self, name: str) -> None:
        """On a thread of the pool: run a turn and those queued after it, or take over from a stuck thread."""
        if name == _RELIEF:
            self._serve(self._queue.relieve())
        elif self._queue.enter(name):
            self._serve(name)

    def _serve(self, following: str | None) -> None:
        while following is not None:
            self._replace_stuck_threads()
            self._run_turn(following)
            following = self._queue.next()

    def _run_turn(self, name: str) -> None:
        with self._lock:
            if self._stopped or name in self._running or name not in self._due:
                return
            self._running.add(name)
            self._due[name] = inf
        due = self._clock.now().boot + _AFTER_EXCEPTION
        try:
            due = self._turn(name)
        except Exception as error:  # noqa: BLE001 - a bug costs a minute, not the target
            text = f"a turn failed: {origin_of(error)}; this is a bug in bearerd, please report it"
            say(logging.ERROR, text, name=name)
        finally:
            with self._lock:
                self._running.discard(name)
                if name in self._due:  # not removed meanwhile
                    self._due[name] = min(due, self._due[name])
                    self._move(name, self._due[name])
                self._ended.notify_all()

    def _add_pool(self) -> None:
        """Run all turns in a new pool from now on. Needs the lock."""
        self._pools += 1
        self._threads += self._workers
        pool = ThreadPoolExecutor(self._workers, {"thread_name_prefix": self._threads_named + str(self._pools)})
        alias = f"pool-{self._pools}"
        self._scheduler.add_executor(pool, alias=alias)
        self._jobs.executor = alias

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

    def _without_thread(self, now: float) -> list[str]:
        """An overdue target, if the pool has no thread. Its new thread then runs the other turns, too."""
        overdue = next((name for name, due in self._due.items() if due < now - _DRIFT), None)
        if overdue is None or any(thread.name.startswith(self._threads_named) for thread in threading.enumerate()):
            return []
        say(logging.ERROR, "no thread can be started; raise TasksMax, or lower max_concurrency")
        return [overdue]

    def _set(self, name: str, due: float) -> None:
        """Schedule a turn by this time. Needs the lock, so that the earlier of two calls also wins in the scheduler."""
        if name in self._due and due < self._due[name]:
            self._due[name] = due
            if name not in self._running and not (due <= self._clock.now().boot and self._queue.offer(name)):
                self._move(name, due)

    def _start(self, name: str) -> bool:
        return self._move(name, self._clock.now().boot)

    def _relieve_in(self, seconds: float) -> None:
        self._move(_RELIEF, self._clock.now().boot + seconds)

    def _move(self, name: str, due: float) -> bool:
        """Tell the scheduler when the next turn is due. Returns False if it has no such job."""
        return not self._stopped and self._jobs.move(name, self._wall(due))

    def _wall(self, due: float) -> float:
        now = self._clock.now()
        return now.wall + min(due - now.boot, LONGEST_WAIT)

    def _wall_offset(self) -> float:
        now = self._clock.now()
        return now.wall - now.boot


class _Hourly(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """Runs an hour from now: a turn that does not set the next one delays its target by an hour at most."""

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:  # noqa: ARG002
        return now + timedelta(seconds=LONGEST_WAIT)


_HOURLY: Final = _Hourly()


class _Turn(Job):  # type: ignore[misc]  # APScheduler has no types
    """The job of one target. It has the attributes that `add_job` would give it, without what that checks each time."""

    def __init__(self, store: _JobStore, run: Callable[[str], None], name: str, at: float) -> None:
        # The docstring of Job says what each attribute means.
        self._scheduler, self._jobstore_alias = store._scheduler, store._alias  # noqa: SLF001 - of BaseJobStore
        self.id = self.name = name
        self.func, self.func_ref, self.args = run, None, (name,)
        self.kwargs: dict[str, Any] = {}
        self.trigger, self.executor = _HOURLY, store.executor
        self.misfire_grace_time, self.coalesce, self.max_instances = None, True, _MOST_INSTANCES
        self.next_run_time = datetime.fromtimestamp(at, UTC)


class _JobStore(BaseJobStore):  # type: ignore[misc]  # APScheduler has no types
    """A recurring job for each name: `run(name)`. Times are Unix times.

    - `move` sets the next run, and wakes the scheduler's thread only if that run is earlier than the thread would wake.
      `modify_job` wakes it each time.
    - When a job is submitted, its next run is set to an hour later at once. The time that the scheduler computes
      afterwards is not used, so it cannot undo a `move` that a fast worker made in between.
    """

    executor = "default"
    """The alias of the pool that runs the jobs from now on."""

    def __init__(self, run: Callable[[str], None]) -> None:
        super().__init__()
        self._run = run
        self._lock = threading.Lock()
        self._due = DueTimes()
        self._sleeps_until = inf

    def put(self, name: str, at: float) -> None:
        """Add the job of a name, or move its next run."""
        with self._lock:
            self._due.set(name, at)
            wake = at < self._sleeps_until
            self._sleeps_until = min(at, self._sleeps_until)
        if wake and self._scheduler is not None:  # it is set when the scheduler starts
            self._scheduler.wakeup()

    def move(self, name: str, at: float) -> bool:
        """Move the next run. Returns False if the name has no job."""
        with self._lock:
            known = name in self._due
        if known:
            self.put(name, at)
        return known

    def remove(self, name: str) -> None:
        """Remove the job of a name, if it has one."""
        with self._lock:
            self._due.remove(name)

    def earliest(self) -> float:
        """When the first job runs; `inf` without jobs."""
        with self._lock:
            return self._due.earliest()

    # The interface of a job store. The scheduler calls it under its own lock.

    def lookup_job(self, job_id: str) -> Any:
        with self._lock:
            return self._job(job_id, self._due.at(job_id)) if job_id in self._due else None

    def get_due_jobs(self, now: datetime) -> list[Any]:
        time = now.timestamp()
        with self._lock:
            return [self._job(name, at) for name, at in self._due.take(time, time + LONGEST_WAIT)]

    def get_next_run_time(self) -> datetime | None:
        with self._lock:
            self._sleeps_until = at = self._due.earliest()
        return None if at == inf else datetime.fromtimestamp(at, UTC)

    def get_all_jobs(self) -> list[Any]:
        with self._lock:
            return [self._job(name, self._due.at(name)) for name in self._due]

    def add_job(self, job: Any) -> None:
        raise TypeError(f"{job.id}: a job needs only a name and a time; use put")

    def update_job(self, job: Any) -> None:
        """Do nothing: the next run is set when a job is submitted."""

    def remove_job(self, job_id: str) -> None:
        self.remove(job_id)

    def remove_all_jobs(self) -> None:
        with self._lock:
            self._due = DueTimes()

    def _job(self, name: str, at: float) -> _Turn:
        return _Turn(self, self._run, name, at)
