"""Finds the process that a hook names, and signals it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from bearerd import child
from bearerd.descriptors import release
from bearerd.errors import HookFailed
from bearerd.reason import reason_of
from bearerd.regular import NotRegularError, read_regular
from bearerd.terms import Hook

# The kernel keeps that many bytes of a program's name (proc(5)).
_LONGEST_COMM: Final = 15
# Bytes of the first line of a pid file: a number, with room for spaces.
_MOST_PID_BYTES: Final = 32
_HIGHEST_PID: Final = 2**22  # the highest value of pid_max (proc(5))


def send_signal(hook: Hook) -> None:
    """Signal the process in the hook's pid file, or each main process of its name; raises HookFailed."""
    number = signal.Signals[f"SIG{hook.signal}"]
    if hook.pid_file is not None:
        pid = _pid_in(hook.pid_file)
        if not _send(pid, number):
            raise HookFailed(f"process {pid} does not exist")
        return
    name = os.fsencode(hook.process or "")[:_LONGEST_COMM]
    signalled = 0
    fault = HookFailed(f"no process is named {hook.process} (as in `ps -o comm`), or the daemon's user cannot see it")
    for pid in _main_processes(name):
        try:
            signalled += _send(pid, number, name)
        except HookFailed as error:
            fault = error
    if not signalled:  # if one was signalled, those of other users do not matter
        raise fault


def _pid_in(path: str) -> int:
    """The process id in a file: its first line, as systemd reads it."""
    try:
        line = read_regular(path, _MOST_PID_BYTES + 1).partition(b"\n")[0]
    except NotRegularError as error:
        raise HookFailed(str(error)) from None
    except OSError as error:
        raise HookFailed(reason_of(error)) from None
    # kill(2) takes 0 and negative numbers for process groups, bearerd's own among them.
    text = line.strip()
    # A longer line was cut off, and half a number is the id of another process.
    if (
        len(line) > _MOST_PID_BYTES
        or not text.isdigit()
        or not 1 <= int(text) <= _HIGHEST_PID
        or int(text) == os.getpid()
    ):
        raise HookFailed("the file does not contain the id of another process")
    return int(text)


@dataclass(frozen=True, slots=True)
class _Process:
    """A process as in proc(5)."""

    name: bytes
    parent: int
    dead: bool
    """Whether it has ended and its parent has not noticed yet."""


def _look(pid: int) -> _Process | None:
    with suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/stat", "rb") as file:
        # A program's name can contain anything: the other fields follow the last bracket.
        head, _, rest = file.read().rpartition(b")")
        state, parent = rest.split()[:2]
        return _Process(head.partition(b"(")[2], int(parent), dead=state in {b"Z", b"X"})
    return None


def _main_processes(name: bytes) -> Iterator[int]:
    """The processes with a name, except children of such a process: a server passes signals on to its workers."""
    try:
        pids = [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]
    except OSError as error:
        raise HookFailed(f"/proc: {reason_of(error)}") from None
    parents = {pid: seen.parent for pid in pids if (seen := _look(pid)) and seen.name == name}
    return (pid for pid, parent in parents.items() if parent not in parents and pid != os.getpid())


def _send(pid: int, number: int, name: bytes | None = None) -> bool:
    """Signal a process; whether it existed, and had this name.

    The signal goes through a descriptor, which refers to the process that was checked even if its id is reused.
    """
    descriptor = child.descriptor_of(pid)
    try:
        seen = _look(pid)
        if (seen is not None and seen.dead) or (name is not None and (seen is None or seen.name != name)):
            return False
        if descriptor is None:
            os.kill(pid, number)
        else:
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        raise HookFailed(
            f"the daemon's user is not allowed to signal pid {pid}; use a path unit (PathChanged=), which needs no "
            "permission"
        ) from None
    finally:
        if descriptor is not None:
            release(descriptor)
    return True
