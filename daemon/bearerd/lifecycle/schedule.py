"""Gives each target its turns: the one module that uses APScheduler (3.11), and knows its traps.

- A date job that is late is deleted, and an exception before it is armed again loses it for ever. So each
  target has one recurring job; a turn moves its next run, and whatever goes wrong costs one interval.
- An interval job whose clock leaps makes a list of every run that it missed, under the scheduler's lock: from
  1970 on, half a million for each target. So the trigger is our own, and never catches up.
- A job is late as soon as its workers are busy: `misfire_grace_time=None`.
- A run that comes while the last one is not booked out is skipped. So the next run is set by the executor
  after APScheduler has booked the job out, never from inside the job.
- It sleeps on differences of the wall clock, on a monotonic clock that stops in a suspend, and never
  looks again. So `guard`, called every few seconds, compares the clocks and sets all runs anew.
- `shutdown(wait=True)` deadlocks with jobs that touch the store, and pool threads are joined at exit. So
  it is never waited for, and workers are daemon threads: a hung one delays nothing.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from apscheduler.executors.base import BaseExecutor, run_job
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from bearerd.clock import Clock
from bearerd.lifecycle.policy import LONGEST_WAIT
from bearerd.log import say

GUARD: Final = 8.0
"""Seconds between two looks at the clocks: a step or a suspend is to be noticed within 10."""

# The wall clock is slewed at up to 0.5 ms a second: this far off, turns are set anew.
_DRIFT: Final = 1.0
# A busy machine hands turns over late by a second or two; a scheduler that hangs does not at all.
_LEFT_LYING: Final = 30.0
# It is held for as long as 10,000 turns take to be handed over.
_LOCK_WITHIN: Final = 3.0
# A worker without work ends: a burst needs many, an hour's refresh one.
_WORKER_IDLE: Final = 20.0
# What a turn that raised is given, in place of the moment it did not come to name.
_AFTER_EXCEPTION: Final = 60.0


class Schedule:
    """Calls `turn(name)` for each target when it is due, on a worker of its pool.

    Times are those of the boot clock. `turn` returns when its next one is.
    """

    def __init__(self, clock: Clock, turn: Callable[[str], float]) -> None:
        self._clock = clock
        self._turn = turn
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)
        self._due: dict[str, float] = {}
        self._running: set[str] = set()
        self._again: set[str] = set()
        self._passed_over: Counter[str] = Counter()
        self._pools: dict[Hashable, _Workers] = {}
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )
        self._offset = self._wall_offset()
        self._suspended = clock.suspended()

    def add(self, name: str, pool: Hashable, workers: int, due: float) -> None:
        """A target, whose turns run on at most `workers` threads that it shares with the rest of its pool.

        One that is there already goes over to this pool, after the turn that is under way.
        """
        if pool not in self._pools:
            self._pools[pool] = _Workers(f"pool-{len(self._pools)}", workers, self._booked_out)
            self._scheduler.add_executor(self._pools[pool], alias=self._pools[pool].alias)
        with self._lock:
            self._due[name] = due
        self._scheduler.add_job(
            self._run,
            _Hourly(),
            args=[name],
            id=name,
            name=name,
            executor=self._pools[pool].alias,
            next_run_time=self._wall(due),
            replace_existing=True,
        )

    def remove(self, name: str) -> None:
        """No more turns for this target; one that is under way goes on to its end."""
        with self._lock:
            self._due.pop(name, None)
            self._again.discard(name)
        with suppress(JobLookupError):
            self._scheduler.remove_job(name)

    def start(self) -> None:
        """Begin; what is due already runs at once."""
        self._scheduler.start()

    def stop(self, within: float) -> bool:
        """Give no more turns; whether those under way ended within that many seconds."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        with self._ended:
            return self._ended.wait_for(lambda: not self._running, within)

    def wake(self, name: str) -> None:
        """A turn now; if one is under way, another after it."""
        with self._lock:
            if name in self._running:
                self._again.add(name)
                return
            if name not in self._due:
                return
            self._due[name] = self._clock.now().boot
            self._set(name)

    def guard(self) -> bool:
        """Notice steps of the wall clock and suspends, and set every turn anew; whether there was one."""
        for workers in self._pools.values():
            workers.staff()
        offset, suspended = self._wall_offset(), self._clock.suspended()
        stepped = abs(offset - self._offset)
        if stepped <= _DRIFT and abs(suspended - self._suspended) <= _DRIFT:
            return False
        self._offset, self._suspended = offset, suspended
        with self._lock:
            names = list(self._due)
        for name in names:
            # Every target looks at its own times then; a turn with nothing to do costs a look at its files.
            self.wake(name)
        self._scheduler.wakeup()  # for those whose turn is under way
        return True

    def alive(self) -> bool:
        """Whether turns are given: the thread that does it runs, and left none lying.

        A run is handed to its worker, however busy that is, and set an hour later in the same moment.
        """
        thread = getattr(self._scheduler, "_thread", None)
        if thread is None or not thread.is_alive():
            return False
        # All jobs are in the one store, which knows its soonest without a search. There is no public way to ask.
        lock = self._scheduler._jobstores_lock  # noqa: SLF001
        if not lock.acquire(timeout=_LOCK_WITHIN):
            return False
        try:
            soonest = self._scheduler._lookup_jobstore("default").get_next_run_time()  # noqa: SLF001
        finally:
            lock.release()
        return soonest is None or (self._wall(self._clock.now().boot) - soonest).total_seconds() < _LEFT_LYING

    # -- inside --------------------------------------------------------------------------------

    def _run(self, name: str) -> None:
        with self._lock:
            if name in self._running:  # on the pool that it came from
                self._again.add(name)
                self._passed_over[name] += 1
                return
            self._running.add(name)
            self._again.discard(name)
        try:
            due = self._turn(name)
        except Exception as error:  # noqa: BLE001 - a fault of ours may cost a minute, never the target
            due = self._clock.now().boot + _AFTER_EXCEPTION
            say(
                logging.ERROR,
                f"a turn failed: {where(error)}; this is a bug of bearerd, please report it",
                name=name,
            )
        with self._lock:
            if name in self._due:  # not removed meanwhile
                self._due[name] = due

    def _booked_out(self, name: str) -> None:
        with self._lock:
            if self._passed_over[name]:  # of two runs one was none, and whichever ends last is the one
                self._passed_over[name] -= 1
                return
            del self._passed_over[name]
            self._running.discard(name)
            self._ended.notify_all()
            if name not in self._due:
                return
            if name in self._again:
                self._again.discard(name)
                self._due[name] = self._clock.now().boot
            self._set(name)

    def _set(self, name: str) -> None:
        """Hand the due time to APScheduler. Under our lock: of two at once the later must win there too."""
        with suppress(JobLookupError):  # removed meanwhile
            self._scheduler.modify_job(name, next_run_time=self._wall(self._due[name]))

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


class _Workers(BaseExecutor):  # type: ignore[misc]  # APScheduler has no types
    """A pool of daemon threads that are started as they are needed and end when they are not."""

    def __init__(self, alias: str, most: int, booked_out: Callable[[str], None]) -> None:
        super().__init__()
        self.alias = alias
        self._most = most
        self._booked_out = booked_out
        self._jobs: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        self._threads_lock = threading.Lock()
        self._threads = 0
        self._idle = 0
        self._stopped = False

    def shutdown(self, wait: bool = True) -> None:  # noqa: ARG002 - APScheduler's signature
        """Begin nothing that is still queued."""
        self._stopped = True

    def _do_submit_job(self, job: Any, run_times: Any) -> None:
        self._jobs.put((job, run_times))
        self.staff()

    def staff(self) -> None:
        """Start a worker, if there is more to do than workers that wait for it."""
        with self._threads_lock:
            if self._idle >= self._jobs.qsize() or self._threads >= self._most:
                return
            self._threads += 1
        try:
            threading.Thread(target=self._work, name="worker", daemon=True).start()
        except RuntimeError:  # no more threads may be started (TasksMax): the guard tries again
            with self._threads_lock:
                self._threads -= 1
            say(logging.ERROR, "no thread can be started; raise TasksMax, or lower max_concurrency")

    def _work(self) -> None:
        while True:
            with self._threads_lock:
                self._idle += 1
            try:
                job, run_times = self._jobs.get(timeout=_WORKER_IDLE)
            except queue.Empty:
                job = None
            with self._threads_lock:
                self._idle -= 1
                if job is None and self._jobs.empty():
                    self._threads -= 1
                    return
            if job is None or self._stopped:
                continue
            try:
                # One run, however many were missed.
                events = run_job(job, job._jobstore_alias, run_times[-1:], self._logger.name)  # noqa: SLF001 - as APScheduler's own pools do
            except BaseException as error:  # noqa: BLE001
                self._run_job_error(job.id, error, error.__traceback__)
            else:
                self._run_job_success(job.id, events)
            try:
                self._booked_out(job.id)
            except Exception as error:  # noqa: BLE001 - a worker that ended here would be counted for ever
                say(logging.ERROR, f"a turn was not booked out: {where(error)}; this is a bug of bearerd", name=job.id)
