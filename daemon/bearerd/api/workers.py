"""A bounded number of short-lived threads with a bounded queue."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from bearerd.threads import start

Job = TypeVar("Job")


class Workers(Generic[Job]):
    """Runs `serve` in at most `most` threads, while `waiting` more jobs wait in order.

    A thread that finished a job takes the next one together with all jobs that are `alike`, and ends if there is none.
    Jobs taken together count as waiting until they are served. `serve` must not raise, except for lack of memory.
    """

    def __init__(
        self,
        most: int,
        waiting: int,
        serve: Callable[[Sequence[Job]], None],
        alike: Callable[[Job, Job], bool] = lambda one, other: one is other,
    ) -> None:
        self._most = most
        self._most_jobs = most + waiting
        self._serve = serve
        self._alike = alike
        self._lock = threading.Lock()
        self._running = 0
        self._taken = 0
        self._waiting: deque[Job] = deque()

    def submit(self, job: Job) -> Job | None:
        """Serve a job. Returns the oldest waiting job if too many wait. Raises RuntimeError without a thread."""
        with self._lock:
            if self._running >= self._most:
                self._waiting.append(job)
                too_many = self._taken + len(self._waiting) > self._most_jobs
                return self._waiting.popleft() if too_many else None
            self._running += 1
            self._taken += 1
        try:
            start("api", self._run, [job])
        except BaseException:
            with self._lock:
                self._running -= 1
                self._taken -= 1
            raise
        return None

    def _run(self, jobs: Sequence[Job]) -> None:
        while jobs:
            with suppress(MemoryError):
                self._serve(jobs)
            with self._lock:
                self._taken -= len(jobs)
                jobs = ()
                with suppress(MemoryError):  # those that wait follow the next job
                    jobs = self._next()
                self._taken += len(jobs)
                self._running -= not jobs

    def _next(self) -> Sequence[Job]:
        """The oldest waiting job, with all jobs that are alike. Needs the lock."""
        if not self._waiting:
            return ()
        first = self._waiting[0]
        taken = [job for job in self._waiting if self._alike(first, job)]
        self._waiting = deque(job for job in self._waiting if not self._alike(first, job))
        return taken
