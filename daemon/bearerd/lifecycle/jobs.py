"""Calls a function with a name at the time of each name.

This is the one module that uses APScheduler (3.11). It works around these properties:

- APScheduler deletes a date job that is late. If an exception comes before the job is added again, it is lost for
  ever. So each name has one recurring job, and `move` sets its next run. An error costs one interval at most.
- A job takes half a kilobyte, and moving one in the memory store sorts a list. So the job store is our own: it holds a
  time for each name, and makes the job when it is due, as APScheduler's stores in databases do.
- An interval job computes every run that it missed, under the scheduler's lock. After a step from 1970 that is half a
  million runs per name. So the trigger is our own, and computes only the next run.
- A job counts as late if its workers are busy when it is due. So `misfire_grace_time` is None.
- A run that is due while the last one is still registered is skipped, unless `max_instances` allows more. It does, and
  the caller keeps the runs of a name from overlapping.
- The scheduler computes its sleep from the wall clock once, and sleeps on a monotonic clock that stops in a suspend. So
  the caller compares the clocks, and calls `wake`.
- Its pool is that of `concurrent.futures`, which may wait forever for a new thread. So the executor is our own.
- An exception between two jobs, such as a lack of memory, ends its thread. One while jobs are read or submitted delays
  them by their interval. So the thread goes on, and the caller is told that runs may be lost.
- `shutdown(wait=True)` deadlocks with jobs that use the store, so it is not used.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any, Final

from apscheduler.executors.base import BaseExecutor, run_job
from apscheduler.job import Job
from apscheduler.jobstores.base import BaseJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.base import STATE_STOPPED
from apscheduler.triggers.base import BaseTrigger

from bearerd.errors import unexpected
from bearerd.lifecycle.due_times import DueTimes
from bearerd.lifecycle.policy import LONGEST_WAIT
from bearerd.log import say
from bearerd.threads import Pool

# Per name. A run that finds another one running ends at once.
_MOST_INSTANCES: Final = 1000
# Seconds until the scheduler's thread goes on after an exception. Memory may be free by then. A loop without a pause
# would use a whole processor.
_PAUSE: Final = 0.5


class Jobs:
    """Calls `run(name)` at a Unix time for each name, on the threads of the pool that was added last.

    A run may begin while another one of the same name is in progress. `lost` is called if runs that were due may have
    been lost, for lack of memory. It must not need memory.
    """

    def __init__(self, run: Callable[[str], None], lost: Callable[[], None]) -> None:
        self._lost = lost
        self._scheduler = _Scheduler(lost)
        self._store = _JobStore(run, lost)
        self._scheduler.add_jobstore(self._store)
        self._pools: list[Pool] = []

    def add_pool(self, threads: int) -> None:
        """Run everything from now on in a new pool of this many threads."""
        self._pools.append(Pool("turn", threads))
        alias = f"pool-{len(self._pools)}"
        self._scheduler.add_executor(_Executor(self._pools[-1], self._lost), alias=alias)
        self._store.executor = alias

    def start(self) -> None:
        """Start the scheduler. Runs that are due begin at once."""
        self._scheduler.start()

    def stop(self) -> None:
        """Begin no more runs. Those in progress continue."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def put(self, name: str, at: float) -> None:
        """Add a name, or move its next run."""
        self._store.put(name, at)

    def move(self, name: str, at: float) -> bool:
        """Move the next run. Returns False if the name is unknown."""
        return self._store.move(name, at)

    def remove(self, name: str) -> None:
        """Remove a name, if it is known."""
        self._store.remove_job(name)

    def earliest(self) -> float:
        """When the first run is due; `inf` without names."""
        return self._store.earliest()

    def wake(self) -> None:
        """Let the scheduler compute again how long it sleeps, after a step of the wall clock or a suspend."""
        self._scheduler.wakeup()

    def alive(self) -> bool:
        """Whether the scheduler's thread runs."""
        # Private: the scheduler's own `running` stays true when an exception ends its thread.
        thread = getattr(self._scheduler, "_thread", None)
        return thread is not None and thread.is_alive()

    def tick(self) -> bool:
        """Call it every few seconds: starts threads that could not be started.

        Returns False if runs wait in a pool that has no thread at all.
        """
        served = [pool.tick() for pool in self._pools]
        return all(served)


class _Scheduler(BackgroundScheduler):  # type: ignore[misc]  # APScheduler has no types
    """Its thread goes on after an exception."""

    def __init__(self, lost: Callable[[], None]) -> None:
        super().__init__(timezone=UTC)
        self._lost = lost

    def _main_loop(self) -> None:
        while self.state != STATE_STOPPED:
            try:
                super()._main_loop()
            except Exception as error:  # noqa: BLE001 - without this thread, no token would be refreshed
                self._lost()
                with suppress(Exception):
                    say(logging.ERROR, f"the scheduler failed: {unexpected(error)}; all tokens are checked within 8 s")
                time.sleep(_PAUSE)
                self.wakeup()


class _Executor(BaseExecutor):  # type: ignore[misc]  # APScheduler has no types
    """Runs jobs in a pool of ours."""

    def __init__(self, pool: Pool, lost: Callable[[], None]) -> None:
        super().__init__()
        self._pool = pool
        self._lost = lost

    def submit_job(self, job: Any, run_times: list[datetime]) -> None:
        try:
            super().submit_job(job, run_times)
        except Exception:
            self._lost()  # APScheduler only logs it
            raise

    def shutdown(self, wait: bool = True) -> None:  # noqa: ARG002 - APScheduler's signature
        self._pool.close()

    def _do_submit_job(self, job: Any, run_times: list[datetime]) -> None:
        def run() -> None:
            # As APScheduler's pools do. It returns what listeners are told, and reports what the function raises.
            self._run_job_success(job.id, run_job(job, job._jobstore_alias, run_times, self._logger.name))  # noqa: SLF001

        self._pool.submit(run)


class _Hourly(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """Runs an hour from now: a run that does not set the next one delays its name by an hour at most."""

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:  # noqa: ARG002
        return now + timedelta(seconds=LONGEST_WAIT)


_HOURLY: Final = _Hourly()


class _Run(Job):  # type: ignore[misc]  # APScheduler has no types
    """The job of one name. It has the attributes that `add_job` would give it, without what that checks each time."""

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

    def __init__(self, run: Callable[[str], None], lost: Callable[[], None]) -> None:
        super().__init__()
        self._run = run
        self._lost = lost
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

    def earliest(self) -> float:
        """When the first job runs; `inf` without jobs."""
        with self._lock:
            return self._due.earliest()

    # The interface of a job store. The scheduler calls it under its own lock.

    def lookup_job(self, job_id: str) -> Any:
        with self._lock:
            return self._job(job_id, self._due.at(job_id)) if job_id in self._due else None

    def get_due_jobs(self, now: datetime) -> list[Any]:
        at = now.timestamp()
        try:
            with self._lock:
                return [self._job(name, due) for name, due in self._due.take(at, at + LONGEST_WAIT)]
        except Exception:
            # APScheduler only logs it, and sleeps for 10 s, unless the next `put` wakes it.
            with self._lock:
                self._sleeps_until = inf
            self._lost()
            raise

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
        with self._lock:
            self._due.remove(job_id)

    def remove_all_jobs(self) -> None:
        with self._lock:
            self._due = DueTimes()

    def _job(self, name: str, at: float) -> _Run:
        return _Run(self, self._run, name, at)
