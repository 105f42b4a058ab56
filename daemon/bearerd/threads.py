"""Starts threads, and never waits without a limit for one that has no memory to begin.

`threading.Thread.start` waits until the new thread runs. A thread that dies of a MemoryError in its first steps never
tells it, so that the thread that called `start` would wait forever. `concurrent.futures` starts its threads in that
way, with a lock held.
"""

from __future__ import annotations

import _thread
import queue
import threading
import time
from collections.abc import Callable
from typing import Final

from bearerd.errors import NoThread

# Seconds. A new thread begins within milliseconds, and on a machine that is overloaded a hundred times within this.
_BEGINS_WITHIN: Final = 5.0


class Started:
    """A thread that was started. It does not delay the end of the process."""

    def __init__(self, name: str, run: Callable[..., object], arguments: tuple[object, ...]) -> None:
        self._since = time.monotonic()
        self._decides = threading.Lock()
        self._begun = threading.Event()
        self._lost = False
        self._ended = False
        try:
            _thread.start_new_thread(self._body, (name, run, arguments))
        except RuntimeError:
            raise NoThread("no thread can be started; raise TasksMax") from None
        except MemoryError:
            raise NoThread("there is no memory for another thread; raise the memory limit of bearerd") from None

    def begun(self) -> bool:
        """Whether it has begun. Its function is being called, or has been."""
        return self._begun.is_set()

    def lost(self) -> bool:
        """Whether it did not begin in time. Its function is never called then."""
        with self._decides:
            if not self._begun.is_set() and time.monotonic() >= self._since + _BEGINS_WITHIN:
                self._lost = True
            return self._lost

    def alive(self) -> bool:
        """Whether its function has not ended yet, and may still be called."""
        return not self._ended and not self.lost()

    def wait(self) -> None:
        """Wait until it begins. Raises RuntimeError if it is lost."""
        if not self._begun.wait(_BEGINS_WITHIN) and self.lost():
            raise NoThread("a new thread did not begin; raise the memory limit of bearerd")

    def _body(self, name: str, run: Callable[..., object], arguments: tuple[object, ...]) -> None:
        with self._decides:
            if self._lost:
                return
            self._begun.set()
        try:
            run(*arguments)
        except BaseException as error:  # noqa: BLE001 - as any thread, it ends here
            self._ended = True
            _report(name, error)
        self._ended = True


def begin(name: str, run: Callable[..., object], *arguments: object) -> Started:
    """Call a function in a new thread. Raises RuntimeError if none can be started; the result says if it is lost."""
    return Started(name, run, arguments)


def start(name: str, run: Callable[..., object], *arguments: object) -> Started:
    """Call a function in a new thread, and wait for a few seconds until it begins.

    Raises RuntimeError if no thread can be started, or if it does not begin in time. The function is not called then.
    """
    started = Started(name, run, arguments)
    started.wait()
    return started


class Pool:
    """Runs jobs in order, in at most `most` threads. A thread starts when a job has no free one.

    It never waits for a new thread. A job for which none could be started stays queued: the next free thread runs it,
    or one that `tick` starts.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._free = 0
        """Threads without a job, also those that have yet to begin; negative: jobs without a thread."""
        self._begun = 0
        self._beginning: list[Started] = []
        self._closed = False

    def submit(self, job: Callable[[], object]) -> None:
        """Run a job. An exception that it raises is reported like that of any thread."""
        with self._lock:
            if self._closed:
                return
            self._free -= 1
            self._jobs.put(job)
            self._start_missing()

    def tick(self) -> bool:
        """Call it every few seconds: starts the threads that could not be started, or did not begin.

        Returns False if jobs wait and the pool has no thread at all.
        """
        with self._lock:
            lost = [started for started in self._beginning if not started.alive()]  # or ended before it counted itself
            self._beginning = [started for started in self._beginning if started not in lost]
            self._free -= len(lost)
            self._start_missing()
            return self._free >= 0 or self._begun > 0

    def close(self) -> int:
        """Start no more jobs. Those in progress continue. Returns how many were dropped."""
        with self._lock:
            self._closed = True
            dropped = 0
            while True:
                try:
                    dropped += self._jobs.get_nowait() is not None
                except queue.Empty:
                    break
            for _ in range(self._begun):
                self._jobs.put(None)
            return dropped

    def _start_missing(self) -> None:
        """Start a thread for each job without one, as far as it is possible. Needs the lock."""
        while self._free < 0 and self._begun + len(self._beginning) < self._most and not self._closed:
            try:
                self._beginning.append(begin(self._name, self._run))
            except RuntimeError:
                return
            self._free += 1

    def _run(self) -> None:
        with self._lock:
            if self._closed:
                return
            # Not only this one: another thread that has begun may wait for the lock.
            beginning = [started for started in self._beginning if not (started.begun() and started.alive())]
            self._begun += len(self._beginning) - len(beginning)
            self._beginning = beginning
        while True:
            try:
                job = self._jobs.get()
                if job is None:
                    return
                job()
                del job  # it would be kept until the next one
            except BaseException as error:  # noqa: BLE001 - the thread must continue, also after a MemoryError
                _report(self._name, error)
            with self._lock:
                self._free += 1


def _report(name: str, error: BaseException) -> None:
    thread = threading.Thread(name=name)  # only its name is reported
    threading.excepthook(threading.ExceptHookArgs((type(error), error, error.__traceback__, thread)))
