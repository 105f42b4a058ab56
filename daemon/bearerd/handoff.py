"""A run queue that one thread serves at a time, and hands off while it waits for something outside the process.

Python runs only one thread at a time. If several threads have work, they pass its lock to each other at every system
call. That costs more than the work itself: two thirds of the CPU time of a burst with eight workers. So one thread
computes, and takes the next name from the queue when it is done. Another thread takes over only while the first one
waits. Go's scheduler does the same: a processor has a run queue, and is handed off while its thread is blocked.

    name = first                            # on a thread of the pool
    if queue.enter(name):
        while name is not None:
            ...                             # a turn, in which somewhere:
            with waiting():                 # the reply, a connection, a disk
                ...
            name = queue.next()

This only saves time: no code relies on being the only one that runs. A thread that computes for longer than `PATIENCE`
while names are queued is considered stuck (a file system that hangs), and another thread takes over.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

PATIENCE: Final = 0.2
"""Seconds. A turn computes for a millisecond, and a hundred may come back from the network at once."""


class _Seat:
    """The place of one thread in a queue."""

    __slots__ = ("called", "queue", "turns", "waited")

    def __init__(self, queue: RunQueue) -> None:
        self.queue = queue
        # Held until the thread is called. An Event would make two locks for each wait.
        self.called = threading.Lock()
        self.called.acquire()
        self.turns = 0
        self.waited = False
        """Whether it waited in its present turn."""


class _Mine(threading.local):
    seat: _Seat | None = None


_mine = _Mine()


class RunQueue:
    """Names that are due. Thread-safe; its lock is held for microseconds."""

    def __init__(self, start: Callable[[str], bool], relieve_in: Callable[[float], None]) -> None:
        """`start` lets a thread `enter` with a name, and returns False if the name was removed.

        `relieve_in` lets a thread call `relieve` after a number of seconds.
        """
        self._start = start
        self._relieve_in = relieve_in
        self._lock = threading.Lock()
        self._computing: _Seat | None = None
        self._returning: deque[_Seat] = deque()
        self._woken: deque[str] = deque()
        self._names: deque[str] = deque()
        self._queued: set[str] = set()
        self._watched: tuple[_Seat, int] | None = None
        """The thread that computed when `relieve` was requested, and its turn."""
        self._stuck: set[_Seat] = set()

    @property
    def stuck(self) -> int:
        """The number of threads that were found to be stuck, and have not continued since."""
        return len(self._stuck)

    def enter(self, name: str) -> bool:
        """Returns True if this thread computes from now on. Otherwise the name is queued for the one that does."""
        with self._lock:
            if self._computing is None:
                self._computing = _mine.seat = _Seat(self)
                self._queued.discard(name)
                self._watch()
                return True
            self._append(name, self._names)
        return False

    def offer(self, name: str) -> bool:
        """Queue a woken name before those that were not woken. Returns False if no thread computes."""
        with self._lock:
            if self._computing is None:
                return False
            self._append(name, self._woken)
        return True

    def next(self) -> str | None:
        """The next name; None if this thread no longer computes."""
        with self._lock:
            seat = _mine.seat
            if seat is not None:
                self._stuck.discard(seat)
            if seat is not None and self._computing is seat:
                seat.turns += 1
                # A thread that waited may have freed a slot of its provider. It begins the next request first, so that
                # the network is never idle; those that came back go on as soon as it waits again.
                waited, seat.waited = seat.waited, False
                if (waited or not self._returning) and (name := self._pop()) is not None:
                    return name
                self._pass_on()
            _mine.seat = None
        return None

    def abandon(self) -> None:
        """Give up this thread's place after an exception: it no longer computes, and is not stuck."""
        with self._lock:
            seat, _mine.seat = _mine.seat, None
            if seat is not None:
                self._stuck.discard(seat)
                if self._computing is seat:
                    self._pass_on()

    def relieve(self) -> str | None:
        """Take over if no thread computes, or a stuck one. Returns the next name; this thread then computes."""
        with self._lock:
            watched, self._watched = self._watched, None
            if watched is not None and self._computing is watched[0] and watched[0].turns == watched[1]:
                self._leave_behind()
            name = self._pop() if self._computing is None else None
            if name is not None:
                self._computing = _mine.seat = _Seat(self)
            self._watch()
        return name

    def leave(self, seat: _Seat) -> None:
        """Note that the thread begins to wait."""
        with self._lock:
            self._stuck.discard(seat)
            if self._computing is seat:
                self._pass_on()

    def come_back(self, seat: _Seat) -> None:
        """Note that the thread has stopped waiting. Returns once it may compute, after `PATIENCE` at the latest."""
        with self._lock:
            seat.waited = True
            if self._computing is None:
                self._computing = seat
                return
            self._returning.append(seat)
        if seat.called.acquire(timeout=PATIENCE):
            return
        with self._lock:
            if seat in self._returning:
                self._returning.remove(seat)
                self._leave_behind()
                self._computing = seat
                return
        seat.called.acquire()  # it was called meanwhile

    # -- inside ----------------------------------------------------------------------------------

    def _leave_behind(self) -> None:
        if self._computing is not None:
            self._stuck.add(self._computing)
        self._computing = None

    def _append(self, name: str, names: deque[str]) -> None:
        if name in self._queued and names is self._names:
            return
        names.append(name)
        self._queued.add(name)
        self._watch()

    def _pop(self) -> str | None:
        for names in (self._woken, self._names):
            while names:
                name = names.popleft()
                if name not in self._queued:
                    continue  # it was woken, and had its turn already
                self._queued.remove(name)
                return name
        return None

    def _pass_on(self) -> None:
        """Let the first thread that came back compute, or else another thread with the next name."""
        if self._returning:
            self._computing = self._returning.popleft()
            self._computing.called.release()
            return
        self._computing = None
        while (name := self._pop()) is not None and not self._start(name):
            pass

    def _watch(self) -> None:
        """Schedule a check after `PATIENCE`: if the computing thread is still in the same turn then, it is stuck."""
        if self._watched is None and self._computing is not None and self._queued:
            self._watched = (self._computing, self._computing.turns)
            self._relieve_in(PATIENCE)


class waiting:  # noqa: N801 - reads as a statement
    """Lets another thread compute during the block. It does nothing in a thread that has no place in a queue."""

    __slots__ = ("_seat",)

    def __enter__(self) -> None:
        # A block within this one has nothing to hand off, and must not come back before this one ends.
        self._seat, _mine.seat = _mine.seat, None
        if self._seat is not None:
            self._seat.queue.leave(self._seat)

    def __exit__(self, *_: object) -> None:
        if self._seat is not None:
            _mine.seat = self._seat
            self._seat.queue.come_back(self._seat)


@contextmanager
def holding(lock: threading.Lock) -> Iterator[None]:
    """Hold a lock under which others wait for something outside the process.

    While it waits for the lock, this thread must not count as the one that computes: the holder could not continue.
    """
    if not lock.acquire(blocking=False):
        with waiting():
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
