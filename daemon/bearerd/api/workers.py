"""Short-lived threads for replies that may take time: a bounded number, and a bounded queue before them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Job = TypeVar("Job")


class Workers(Generic[Job]):
    """Runs `serve` for each job in at most `most` threads; `waiting` more jobs wait, in order.

    A thread takes the next waiting job when it has done one, and ends when there is none. `serve` must not raise.
    """

    def __init__(self, most: int, waiting: int, serve: Callable[[Job], None]) -> None:
        self._most = most
        self._longest = waiting
        self._serve = serve
        self._lock = threading.Lock()
        self._running = 0
        self._waiting: deque[Job] = deque()

    def submit(self, job: Job) -> Job | None:
        """Serve a job; returns the one that waited longest when too many wait. Raises RuntimeError without a thread."""
        with self._lock:
            if self._running >= self._most:
                self._waiting.append(job)
                return self._waiting.popleft() if len(self._waiting) > self._longest else None
            self._running += 1
        try:
            threading.Thread(target=self._run, args=(job,), name="api", daemon=True).start()
        except BaseException:
            with self._lock:
                self._running -= 1
            raise
        return None

    def _run(self, job: Job) -> None:
        while True:
            self._serve(job)
            with self._lock:
                if not self._waiting:
                    self._running -= 1
                    return
                job = self._waiting.popleft()
