"""Gives each target its turns: the one module that uses APScheduler (3.11), and knows its traps.

- A date job that is late is deleted, and an exception before it is armed again loses it for ever. So each
  target has one recurring job; a turn moves its next run, and whatever goes wrong costs one interval.
- An interval job whose clock leaps makes a list of every run that it missed, under the scheduler's lock: from
  1970 on, half a million for each target. So the trigger is our own, and never catches up.
- A job is late as soon as its workers are busy: `misfire_grace_time=None`.
- A run that comes while the last one is not booked out is skipped, unless `max_instances` allows more. It does, and
  a target's turns are kept apart here: by one set, under one lock.
- It sleeps on differences of the wall clock, on a monotonic clock that stops in a suspend, and never
  looks again. So `guard`, called every few seconds, compares the clocks and sets all runs anew.
- `shutdown(wait=True)` deadlocks with jobs that touch the store. So it is never waited for; the pool joins its
  threads when the interpreter ends, and the process ends by `os._exit` before that.
- A pool that cannot start a thread keeps the run and raises; the run has no worker until the next one is started.
  So `guard` submits another where there is no thread at all: a turn too many costs a look.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any, Final

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import BaseJobStore, ConflictingIdError, JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from bearerd.clock import Clock
from bearerd.handoff import RunQueue
from bearerd.lifecycle.due_times import DueTimes
from bearerd.lifecycle.policy import LONGEST_WAIT
from bearerd.log import say

GUARD: Final = 8.0
"""Seconds between two looks at the clocks: a step or a suspend is to be noticed within 10."""

# The wall clock is slewed at up to 0.5 ms a second: this far off, turns are set anew.
_DRIFT: Final = 1.0
# A busy machine hands turns over late by a second or two; a scheduler that hangs does not at all.
_OVERDUE: Final = 30.0
# It is held for as long as 10,000 turns take to be handed over.
_LOCK_WITHIN: Final = 3.0
# A turn that raised names no moment; a fault of ours costs a minute, never the target.
_AFTER_EXCEPTION: Final = 60.0
_THREADS: Final = "turn"
# Of one target: a run that finds another under way ends at once.
_MOST_INSTANCES: Final = 1000


class Schedule:
    """Calls `turn(name)` for each target when it is due, on at most `workers` threads, never twice at once.

    Times are those of the boot clock. `turn` returns when its next one is; `inf` where only `wake` brings one.
    """

    def __init__(self, clock: Clock, turn: Callable[[str], float], workers: int) -> None:
        self._clock = clock
        self._turn = turn
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)
        self._due: dict[str, float] = {}
        """Of each target that has a job: when its next turn is; while one is under way, when another was asked for."""
        self._running: set[str] = set()
        self._stopped = False
        self._pools = 0
        self._workers = 0
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": _MOST_INSTANCES},
        )
        self._jobs = _JobStore(self._scheduler.wakeup)
        self._scheduler.add_jobstore(self._jobs)
        self._queue = RunQueue(self._enter_by)
        self._offset = self._wall_offset()
        self._suspended = clock.suspended()
        self.resize(workers)

    def resize(self, workers: int) -> None:
        """Turns from now on share so many threads, if that is more than before."""
        if workers <= self._workers:
            return
        self._workers, self._pools = workers, self._pools + 1
        pool = ThreadPoolExecutor(workers, {"thread_name_prefix": _THREADS})
        self._scheduler.add_executor(pool, alias=self._alias())
        with self._lock:
            for name in self._due:
                self._scheduler.modify_job(name, executor=self._alias())

    def add(self, name: str, due: float) -> None:
        """A target; one that is there already has its next turn by then, too."""
        with self._lock:
            if name in self._due:
                self._set(name, due)
                return
            self._due[name] = due
            self._scheduler.add_job(
                self._run,
                _Hourly(),
                args=[name],
                id=name,
                name=name,
                executor=self._alias(),
                next_run_time=self._wall(due),
            )

    def remove(self, name: str) -> None:
        """No more turns for this target; one that is under way goes on to its end."""
        with self._lock:
            if self._due.pop(name, None) is not None:
                self._scheduler.remove_job(name)

    def names(self) -> set[str]:
        """The targets that have turns."""
        with self._lock:
            return set(self._due)

    def start(self) -> None:
        """Begin; what is due already runs at once."""
        self._scheduler.start()

    def stop(self, within: float) -> bool:
        """Give no more turns; whether those under way ended within that many seconds."""
        with self._lock:
            self._stopped = True
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        with self._ended:
            return self._ended.wait_for(lambda: not self._running, within)

    def wake(self, name: str, at: float | None = None) -> None:
        """A turn at that moment at the latest, else now; if one is under way, another after it."""
        with self._lock:
            self._set(name, self._clock.now().boot if at is None else at)

    def guard(self) -> bool:
        """Notice steps of the wall clock and suspends, and set every turn anew; whether there was one."""
        offset, suspended, now = self._wall_offset(), self._clock.suspended(), self._clock.now().boot
        stepped = abs(offset - self._offset) > _DRIFT or abs(suspended - self._suspended) > _DRIFT
        if stepped:
            self._offset, self._suspended = offset, suspended
        with self._lock:
            # After a step every target looks at its own times; a turn with nothing to do costs a look at its files.
            for name in list(self._due) if stepped else self._without_thread(now):
                self._due[name] = min(self._due[name], now)
                if name not in self._running:
                    self._move(name, self._due[name])
        if stepped:
            self._scheduler.wakeup()  # for those whose turn is under way
        return stepped

    def alive(self) -> bool:
        """Whether turns are given: the thread that hands them over runs, and none has been due for long.

        A turn is handed to the pool, however busy that is, and its job set an hour later in the same moment.
        """
        # Private: the scheduler's own `running` stays true when an exception ends its thread.
        thread = getattr(self._scheduler, "_thread", None)
        if thread is None or not thread.is_alive():
            return False
        if not self._lock.acquire(timeout=_LOCK_WITHIN):
            return False  # somebody waits for the scheduler's own lock for as long
        self._lock.release()
        return self._clock.now().wall - self._jobs.earliest() < _OVERDUE

    # -- inside --------------------------------------------------------------------------------

    def _run(self, name: str) -> None:
        """A turn that is due, and whatever is due after it; on a thread of the pool."""
        following: str | None = name
        if not self._queue.enter(name):
            return
        while following is not None:
            self._give(following)
            following = self._queue.next()

    def _give(self, name: str) -> None:
        with self._lock:
            if self._stopped or name in self._running or name not in self._due:
                return
            self._running.add(name)
            self._due[name] = inf
        due = self._clock.now().boot + _AFTER_EXCEPTION
        try:
            due = self._turn(name)
        except Exception as error:  # noqa: BLE001 - a fault of ours may cost a minute, never the target
            text = f"a turn failed: {where(error)}; this is a bug of bearerd, please report it"
            say(logging.ERROR, text, name=name)
        finally:
            with self._lock:
                self._running.discard(name)
                if name in self._due:  # not removed meanwhile
                    self._due[name] = min(due, self._due[name])
                    self._move(name, self._due[name])
                self._ended.notify_all()

    def _without_thread(self, now: float) -> list[str]:
        """One of the targets whose turns are due, if no thread could be started: whoever has one serves the rest."""
        overdue = next((name for name, due in self._due.items() if due < now - _DRIFT), None)
        if overdue is None or any(thread.name.startswith(_THREADS) for thread in threading.enumerate()):
            return []
        say(logging.ERROR, "no thread can be started; raise TasksMax, or lower max_concurrency")
        return [overdue]

    def _set(self, name: str, due: float) -> None:
        """A turn by then. With the lock held: of two at once the earlier must win in the scheduler too."""
        if name in self._due and due < self._due[name]:
            self._due[name] = due
            if name not in self._running and not (due <= self._clock.now().boot and self._queue.offer(name)):
                self._move(name, due)

    def _enter_by(self, name: str, seconds: float) -> bool:
        return self._move(name, self._clock.now().boot + seconds)

    def _move(self, name: str, due: float) -> bool:
        """Hand the moment to the scheduler; whether it has such a job."""
        if self._stopped:
            return False
        now = self._clock.now()
        at = now.wall + min(due - now.boot, LONGEST_WAIT)
        if self._jobs.move(name, at):
            return True
        if not self._scheduler.running:  # it hands jobs to its store when it starts
            self._scheduler.modify_job(name, next_run_time=datetime.fromtimestamp(at, UTC))
        return False

    def _alias(self) -> str:
        return f"pool-{self._pools}"

    def _wall(self, due: float) -> datetime:
        return datetime.fromtimestamp(due + self._wall_offset(), UTC)

    def _wall_offset(self) -> float:
        now = self._clock.now()
        return now.wall - now.boot


def where(error: BaseException) -> str:
    """An exception's type and place: its text could hold what it was about."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    place = f" at {traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}" if traceback else ""
    return f"{type(error).__name__}{place}"


class _Hourly(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """An hour from now, whenever now is: should a turn never set the next, no target is forgotten for longer."""

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:  # noqa: ARG002
        return now + timedelta(seconds=LONGEST_WAIT)


class _JobStore(BaseJobStore):  # type: ignore[misc]  # APScheduler has no types
    """Jobs over a heap.

    Two things differ from APScheduler's own memory store:

    - `move` sets when a job runs next, and wakes the scheduler's thread only for a moment before the one it sleeps
      until. `modify_job` sorts a list, and wakes it each time.
    - A job that is handed over is due an hour later from that same moment. The time that the scheduler computes
      afterwards is not used, so it cannot undo a `move` that a fast worker made in between.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        super().__init__()
        self._wake = wake
        self._lock = threading.Lock()
        self._jobs: dict[str, Any] = {}
        self._due = DueTimes()
        """Seconds since 1970."""
        self._sleeps_until = inf

    def move(self, job_id: str, at: float) -> bool:
        """Run the job at that time next; whether there is such a job."""
        with self._lock:
            if job_id not in self._jobs:
                return False
            self._due.set(job_id, at)
            wake = at < self._sleeps_until
            self._sleeps_until = min(at, self._sleeps_until)
        if wake:
            self._wake()
        return True

    def earliest(self) -> float:
        """When the first job runs; `inf` without jobs."""
        with self._lock:
            return self._due.earliest()

    # What the scheduler calls, under a lock of its own.

    def lookup_job(self, job_id: str) -> Any:
        return self._jobs.get(job_id)

    def get_due_jobs(self, now: datetime) -> list[Any]:
        time, jobs = now.timestamp(), []
        with self._lock:
            for name, at in self._due.take(time, time + LONGEST_WAIT):
                job = self._jobs[name]
                job.next_run_time = datetime.fromtimestamp(at, UTC)
                jobs.append(job)
        return jobs

    def get_next_run_time(self) -> datetime | None:
        with self._lock:
            self._sleeps_until = at = self._due.earliest()
        return None if at == inf else datetime.fromtimestamp(at, UTC)

    def get_all_jobs(self) -> list[Any]:
        return list(self._jobs.values())

    def add_job(self, job: Any) -> None:
        with self._lock:
            if job.id in self._jobs:
                raise ConflictingIdError(job.id)
            self._jobs[job.id] = job
            self._due.set(job.id, job.next_run_time.timestamp())

    def update_job(self, job: Any) -> None:
        with self._lock:
            if job.id not in self._jobs:
                raise JobLookupError(job.id)
            self._jobs[job.id] = job

    def remove_job(self, job_id: str) -> None:
        with self._lock:
            if self._jobs.pop(job_id, None) is None:
                raise JobLookupError(job_id)
            self._due.remove(job_id)

    def remove_all_jobs(self) -> None:
        with self._lock:
            self._jobs.clear()
            self._due = DueTimes()
