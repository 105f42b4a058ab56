"""Keeps what this process holds from others: no core, no ptrace, no look at its environment or descriptors."""

from __future__ import annotations

import ctypes
import logging
import os
import resource
from typing import Final

from bearerd.log import say

# <linux/prctl.h>
_PR_SET_DUMPABLE: Final = 4


def guard() -> None:
    """Make this process undumpable; what it starts gets a core limit of 0, and is otherwise as any program.

    Not to be dumped also means that /proc/PID/{environ,fd,mem} are root's alone (proc(5)), which matters where
    several programs run as one user. The limit alone does not do: a core that goes into a pipe ignores it (core(5)).
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        say(logging.WARNING, f"a crash could write secrets to a core file: {os.strerror(ctypes.get_errno())}")
