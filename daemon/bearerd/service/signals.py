"""Signals: blocked until someone can take them, then only put into a queue.

A signal that means nothing to bearerd does not end it: `kill -USR1` after a rotation of logs is a habit. No such signal
is set to SIG_IGN: hooks and secret commands would inherit that, while exec resets a handler to the default.

These keep their default: QUIT, the faults (SEGV and so on) and the limits (XCPU), which are meant to end a process;
VTALRM and PROF, which come only from timers of this process; STKFLT, which nobody sends; TSTP, TTIN and TTOU, which
belong to the shell. Python ignores PIPE and XFSZ; subprocess restores both in children.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

ENDS: Final = (signal.SIGTERM, signal.SIGINT)
_HELD_BACK: Final = (*ENDS, signal.SIGHUP)
# What users and supervisors send to a process to tell it something. Each ends a process by default.
_WITHOUT_MEANING: Final = (
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGIO,
    signal.SIGPWR,
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
)

# The promise is 5 s. Ending takes 2 s at most; should the process hang all the same, the kernel ends it.
_KILL_AFTER: Final = 4


def hold_back() -> None:
    """Block TERM, INT and HUP until `receive`: process 1 of a container would lose them, and HUP would end any other.

    From here on signals without a meaning do nothing.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
    # Whoever started us may ignore these, and so would we and our children. Without the first nobody learns how a child
    # ended, and each went well; the second is ignored by what a shell starts with `&`.
    for number in (signal.SIGCHLD, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    for number in _WITHOUT_MEANING:
        signal.signal(number, _nothing)


@contextmanager
def ending(code: int) -> Iterator[None]:
    """While nothing has begun, TERM and INT end the process with this exit code; HUP waits for `receive`."""

    def end(received: int, _frame: object) -> None:
        os.write(2, f"bearerd: {signal.Signals(received).name}: stopping before anything was begun\n".encode())
        os._exit(code)

    for number in ENDS:
        signal.signal(number, end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)


def receive(put: Callable[[int], None], *, others: Callable[[int], None] | None = None) -> None:
    """From now on hand TERM and INT to `put`, and those that waited first.

    HUP and the signals without a meaning go to `others`, or do nothing.
    """

    def handle(received: int, _frame: object) -> None:
        # What this interrupts may hold any lock: nothing but a queue's put is done here.
        signal.alarm(_KILL_AFTER)
        put(received)

    def handle_other(received: int, _frame: object) -> None:
        if others is not None:
            others(received)

    for number in ENDS:
        signal.signal(number, handle)
    for number in (signal.SIGHUP, *_WITHOUT_MEANING):
        signal.signal(number, handle_other)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # Also what our parent blocked: a daemon that cannot be ended, and hooks that cannot.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def name_of(number: int) -> str:
    """`SIGUSR1`, `SIGRTMIN+3`."""
    if signal.SIGRTMIN < number < signal.SIGRTMAX:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"
    return signal.Signals(number).name


def _nothing(_number: int, _frame: object) -> None:
    pass
