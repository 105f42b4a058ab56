"""Simulated time: a heap of events, clocks that only the kernel moves, and turns that wait inside a call.

The code under test blocks where it sends a request. So one thread at a time runs the events; a call that has to wait
parks its thread and hands the events to another one. Only one of them ever runs, and the heap decides which, so a seed
always gives the same run. Where nothing else happens before a wait is over, time simply passes: no thread is switched.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Final

from bearerd.terms import Instant

WALL: Final = 1_800_000_000.0
"""The Unix time at which a world begins."""
BOOT: Final = 5_000.0
"""The boot clock's time then: restored ages reach into the time before."""


class Killed(BaseException):
    """The process that waited here is no more. Not an Exception: no handler of the code under test may catch it."""


class Clock:
    """The machine's clocks: `step` sets the wall clock."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._offset = WALL
        self._booted = -BOOT
        self.slept = 0.0

    def now(self) -> Instant:
        """This moment on both clocks."""
        time = self._kernel.now
        return Instant(time + self._offset, time - self._booted)

    def suspended(self) -> float:
        """Seconds slept."""
        return self.slept

    def boot_id(self) -> str:
        """Which boot this is."""
        return "boot"

    def step(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self._offset += seconds

    def moment(self, boot: float) -> float:
        """The kernel's time of a moment of the boot clock."""
        return boot + self._booted


class _Parked:
    """A thread that waits in a call."""

    __slots__ = ("at", "killed", "lock", "owner")

    def __init__(self, at: float, owner: object) -> None:
        self.at = at
        self.owner = owner
        self.killed = False
        self.lock = threading.Lock()
        self.lock.acquire()


class Kernel:
    """The events of one world, in their order. Times are seconds since the world began."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self.waits = 0
        """Calls that had to wait while something else happened."""
        self._heap: list[tuple[float, int, Callable[[], None] | _Parked]] = []
        self._numbers = count()
        self._end = 0.0
        self._parked: list[_Parked] = []
        self._idle: list[threading.Lock] = []
        self._done = False
        self._finished = threading.Event()
        self._error: BaseException | None = None
        self.after: Callable[[], None] = lambda: None
        """Called after each event: the invariants."""

    def at(self, time: float, event: Callable[[], None]) -> None:
        """Let something happen at a moment, now if that has passed."""
        heappush(self._heap, (max(time, self.now), next(self._numbers), event))

    def run(self, until: float) -> None:
        """Let everything happen up to a moment; raises what an event raised."""
        self._end = until
        self._hand_over()
        self._finished.wait()
        self._done = True
        for parked in self._parked:
            parked.killed = True
            parked.lock.release()
        for lock in self._idle:
            lock.release()
        if self._error is not None:
            raise self._error

    def sleep(self, seconds: float, owner: object) -> None:
        """Wait inside a call; raises Killed if the `owner` is killed meanwhile."""
        until = self.now + seconds
        if (not self._heap or self._heap[0][0] > until) and until <= self._end:
            self.now = until
            return
        if self._done:  # a call that was let go at the end, and cleans up
            raise Killed
        parked = _Parked(until, owner)
        self._parked.append(parked)
        heappush(self._heap, (until, next(self._numbers), parked))
        self.waits += 1
        self._hand_over()
        parked.lock.acquire()
        if parked.killed:
            raise Killed

    def kill(self, owner: object) -> None:
        """Every call of this owner that waits ends now, by Killed."""
        for parked in self._parked:
            if parked.owner is owner:
                parked.killed, parked.at = True, self.now
                heappush(self._heap, (self.now, next(self._numbers), parked))

    def postpone(self, owner: object, until: float) -> None:
        """Every call of this owner that waits goes on at that moment at the earliest: the machine sleeps."""
        for parked in self._parked:
            if parked.owner is owner and parked.at < until:
                parked.at = until
                heappush(self._heap, (until, next(self._numbers), parked))

    # -- the threads -----------------------------------------------------------------------------

    def _hand_over(self) -> None:
        """Another thread runs the events from here on."""
        if self._idle:
            self._idle.pop().release()
        else:
            threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        lock = threading.Lock()
        lock.acquire()
        while not self._done:
            woken = self._run()
            if woken is None:
                self._finished.set()
                return
            self._idle.append(lock)  # first: the one that is woken may hand over at once
            woken.lock.release()
            lock.acquire()

    def _run(self) -> _Parked | None:
        """Let things happen until a thread that waits is to go on; None at the end."""
        while True:
            try:
                return self._events()
            except Killed:
                if self._done:
                    return None
            except BaseException as error:  # noqa: BLE001 - raised again by `run`, in the thread that waits for it
                self._error = error
                return None

    def _events(self) -> _Parked | None:
        heap = self._heap
        while heap and heap[0][0] <= self._end:
            time, _, event = heappop(heap)
            if isinstance(event, _Parked):
                if event.at != time or event not in self._parked:
                    continue
                self.now = time
                self._parked.remove(event)
                return event
            self.now = time
            self.events += 1
            event()
            self.after()
        self.now = self._end
        return None
