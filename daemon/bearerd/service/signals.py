"""Signals: held back until there is somebody to take them, then only put into a queue."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_ENDS: Final = (signal.SIGTERM, signal.SIGINT)
_ALL: Final = (*_ENDS, signal.SIGHUP)

# The promise is 5 s. Ending takes 2 s at most; should the process hang all the same, the kernel ends it.
_KILL_AFTER: Final = 4


def hold_back() -> None:
    """Let signals wait: as process 1 of a container one would be lost, and HUP would end us, before `receive`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _ALL)
    # Whoever started us may ignore these, and so would we and our children. Without the first nobody learns how a child
    # ended, and each went well; the second is ignored by what a shell starts with `&`.
    for number in (signal.SIGCHLD, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def ending(code: int) -> Iterator[None]:
    """While nothing has begun, TERM and INT end the process with this exit code; HUP waits for `receive`."""

    def end(received: int, _frame: object) -> None:
        os.write(2, f"bearerd: {signal.Signals(received).name}: stopping before anything was begun\n".encode())
        os._exit(code)

    for number in _ENDS:
        signal.signal(number, end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)


def receive(put: Callable[[int], None], *, hup: bool = False) -> None:
    """From now on hand TERM and INT to `put`, those that waited first; HUP too (`hup`), or it is ignored."""

    def handle(received: int, _frame: object) -> None:
        # What this interrupts may hold any lock: nothing but a queue's put is done here.
        signal.alarm(_KILL_AFTER)
        put(received)

    for number in _ENDS:
        signal.signal(number, handle)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # Not SIG_IGN, which hooks would inherit.
    signal.signal(signal.SIGHUP, lambda number, _frame: put(number) if hup else None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ALL)
