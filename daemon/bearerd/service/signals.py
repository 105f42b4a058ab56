"""Signals: blocked at first, then put into a queue.

A signal without a meaning for bearerd does not end it, because `kill -USR1` after log rotation is common. Such signals
get a handler instead of SIG_IGN: hooks and secret commands would inherit SIG_IGN, while exec resets a handler.

These keep their default: QUIT, faults (SEGV and so on) and limits (XCPU), which are meant to end a process; VTALRM and
PROF, which come only from timers of this process; STKFLT, which is unused; TSTP, TTIN and TTOU, which belong to the
shell. Python ignores PIPE and XFSZ; subprocess restores both in children.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

ENDS: Final = (signal.SIGTERM, signal.SIGINT)
_HELD_BACK: Final = (*ENDS, signal.SIGHUP)
# Signals that users and supervisors send to programs. Each ends a process by default.
_WITHOUT_MEANING: Final = (
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGIO,
    signal.SIGPWR,
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
)

# Seconds. bearerd promises to end within 5 s, and needs 3.5 s at most. If it hangs, the kernel ends it.
_KILL_AFTER: Final = 4


def hold_back() -> None:
    """Block TERM, INT and HUP until `receive`. Process 1 of a container would lose them, and HUP would end others.

    From here on, signals without a meaning do nothing.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
    # The parent may ignore these, and children would inherit that. Without CHLD, exit codes of children are lost; a
    # shell ignores QUIT for commands started with `&`.
    for number in (signal.SIGCHLD, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    for number in _WITHOUT_MEANING:
        signal.signal(number, _nothing)


@contextmanager
def ending(code: int) -> Iterator[None]:
    """Until the service starts, let TERM and INT end the process with this exit code. HUP waits for `receive`."""

    def end(received: int, _frame: object) -> None:
        os.write(2, f"bearerd: {signal.Signals(received).name}: stopping before the start\n".encode())
        os._exit(code)

    for number in ENDS:
        signal.signal(number, end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)


def receive(put: Callable[[int], None], *, others: Callable[[int], None] | None = None) -> None:
    """Pass TERM and INT to `put` from now on, beginning with pending ones.

    HUP and the signals without a meaning go to `others`, or do nothing.
    """

    def handle(received: int, _frame: object) -> None:
        # The interrupted code may hold any lock, so this only puts the signal into a queue.
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
    # Unblock everything: with a mask inherited from the parent, the daemon and its hooks could not be ended.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def name_of(number: int) -> str:
    """`SIGUSR1`, `SIGRTMIN+3`."""
    if signal.SIGRTMIN < number < signal.SIGRTMAX:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"
    return signal.Signals(number).name


def _nothing(_number: int, _frame: object) -> None:
    pass
