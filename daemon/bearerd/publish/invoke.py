"""Runs one hook: a command, or a signal. It is told the token's name and its files, never the token."""

from __future__ import annotations

import logging
import os
import signal
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from subprocess import Popen
from typing import Final

from bearerd import child
from bearerd.errors import HookFailed
from bearerd.log import say
from bearerd.model import Hook, Target
from bearerd.timeformat import duration

# What administrators' programs are used to.
_UMASK: Final = 0o022
# SIGKILL ends what may be ended within milliseconds.
_DIES_WITHIN: Final = 1.0
# The kernel keeps that many bytes of a program's name (proc(5)).
_LONGEST_COMM: Final = 15
_MOST_PID_BYTES: Final = 32
_HIGHEST_PID: Final = 2**22  # the highest that pid_max may be (proc(5))


def invoke(
    hook: Hook, target: Target, environ: Mapping[str, str], started: Callable[[Popen[bytes]], None] = lambda _: None
) -> None:
    """Run a hook to its end; raises HookFailed. `started` is handed a command's process."""
    if hook.signal is not None:
        _signal(hook)
        return
    more = {"BEARERD_TOKEN_NAME": target.full_name, "BEARERD_FILES": "\n".join(out.path for out in target.outputs)}
    try:
        process = child.start(hook.argv, environ, umask=_UMASK, more=more)
    except OSError as error:
        raise HookFailed(f"cannot be started: {_unstarted(hook, error)}") from None
    done = False
    try:
        started(process)
        done = child.ended(process, hook.timeout)
    finally:
        if not done:
            _end(process, hook, target)
    if not done:
        raise HookFailed(f"not done within {duration(hook.timeout)}, killed")
    if process.returncode != 0:
        _end(process, hook, target)  # what it left running would be there twice after the next attempt
        ended = child.fault_of(process.returncode)
        raise HookFailed(f"{ended}; its output is dropped: run it by hand as the daemon's user to see why")


def examine(hook: Hook) -> str | None:
    """What would keep a hook from being run, as far as can be told without running it."""
    if hook.signal is not None:
        return None
    program = hook.argv[0]
    if not os.path.exists(program):
        return f"hook {hook}: {program} is not there"
    if not os.path.isfile(program):
        return f"hook {hook}: {program} is no program"
    return None if os.access(program, os.X_OK) else f"hook {hook}: {program} cannot be executed by this user"


def _unstarted(hook: Hook, error: OSError) -> str:
    if isinstance(error, FileNotFoundError) and os.path.exists(hook.argv[0]):
        return "what its first line names to run it (#!) is not there"
    return _why(error)


def _end(process: Popen[bytes], hook: Hook, target: Target) -> None:
    """End a command with all that it left running. No second one beside it, so it is waited for, however long."""
    child.kill(process)
    if not child.ended(process, _DIES_WITHIN):
        lasts = "it runs as another user, or hangs in the kernel; until its end it is not run again"
        say(logging.ERROR, f"hook {hook}: pid {process.pid} cannot be killed: {lasts}", name=target.full_name)
    child.wait_for_group(process)


# -- signals -----------------------------------------------------------------------------------------


def _signal(hook: Hook) -> None:
    number = signal.Signals[f"SIG{hook.signal}"]
    if hook.pid_file is not None:
        pid = _pid_in(hook.pid_file)
        if not _send(pid, number):
            raise HookFailed(f"{hook.pid_file}: there is no process {pid}")
        return
    name = os.fsencode(hook.process or "")[:_LONGEST_COMM]
    told = 0
    fault = HookFailed(
        f"no process has the name {hook.process} (as `ps -o comm` shows it), or its user is hidden from ours"
    )
    for pid in _heads(name):
        try:
            told += _send(pid, number, name)
        except HookFailed as error:
            fault = error
    if not told:  # those of other users are as good as hidden, where one was told
        raise fault


def _pid_in(path: str) -> int:
    """The process id in a file: its first line, as systemd reads it."""
    try:
        with open(path, "rb", opener=_regular) as file:
            text = file.readline(_MOST_PID_BYTES).strip()
    except OSError as error:
        raise HookFailed(f"{path}: {_why(error)}") from None
    # 0 and below would be groups of processes, our own among them.
    if not text.isdigit() or not 1 <= int(text) <= _HIGHEST_PID or int(text) == os.getpid():
        raise HookFailed(f"{path} holds no process id of another")
    return int(text)


def _regular(path: str, flags: int) -> int:
    # A FIFO at this path would hold us for ever.
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "no plain file")
    return descriptor


@dataclass(frozen=True, slots=True)
class _Process:
    """A process as proc(5) has it."""

    name: bytes
    parent: int
    dead: bool
    """Whether it has ended, and is only there until its parent takes note."""


def _look(pid: int) -> _Process | None:
    with suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/stat", "rb") as file:
        # A program's name may hold anything, so the other fields are those after the last bracket.
        head, _, rest = file.read().rpartition(b")")
        state, parent = rest.split()[:2]
        return _Process(head.partition(b"(")[2], int(parent), dead=state in {b"Z", b"X"})
    return None


def _heads(name: bytes) -> Iterator[int]:
    """The processes of a name, but for those whose parent has it too: a server's workers are its own to tell."""
    try:
        pids = [int(word) for word in os.listdir("/proc") if word.isdecimal()]
    except OSError as error:
        raise HookFailed(f"/proc: {_why(error)}") from None
    parents = {pid: seen.parent for pid in pids if (seen := _look(pid)) and seen.name == name}
    return (pid for pid, parent in parents.items() if parent not in parents and pid != os.getpid())


def _send(pid: int, number: int, name: bytes | None = None) -> bool:
    """Signal a process, if it is there: by a descriptor, since what has this pid now must be what was looked at."""
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
            f"pid {pid} may not be signalled by the daemon's user: a unit with PathChanged= needs no such right"
        ) from None
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return True


def _why(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
