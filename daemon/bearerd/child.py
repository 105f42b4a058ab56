"""Child processes, without a shell, in a clean environment and a separate process group."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final
from weakref import WeakSet

from bearerd.descriptors import release
from bearerd.handoff import waiting

# The variables of the daemon that a program gets. Others could contain secrets.
_ENVIRONMENT: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")
# The code that starts a program waits for it, perhaps long after its end. `reap` must not: the exit code would be lost.
_started: Final = WeakSet[subprocess.Popen[bytes]]()
_lock: Final = threading.Lock()


def start(
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    umask: int,
    stdout: int = subprocess.DEVNULL,
    more: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program; `more` is added to its environment. Raises OSError.

    Its stderr is dropped, and its stdout too unless it is a pipe: both could contain a secret.
    """
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={key: environ[key] for key in _ENVIRONMENT if key in environ} | dict(more or {}),
        start_new_session=True,
        umask=umask,
    )
    with _lock:
        _started.add(process)
    return process


def ended(process: subprocess.Popen[bytes], within: float) -> bool:
    """Wait for its end, at most `within` seconds; returns whether it has ended."""
    descriptor = descriptor_of(process.pid)
    if descriptor is None:
        with suppress(subprocess.TimeoutExpired), waiting():
            process.wait(max(0.0, within))
        return process.returncode is not None
    try:
        # Popen.wait with a timeout would wake twenty times a second.
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        with waiting():
            done = bool(poll.poll(max(0.0, within) * 1000))
    finally:
        release(descriptor)
    if done:
        process.wait()
    return done


def descriptor_of(pid: int) -> int | None:
    """A pidfd, which no later process with the same pid can take over; None if there is none."""
    # A Python built for an old kernel lacks the call, a sandbox may forbid it, and there may be no descriptor left.
    with suppress(AttributeError, OSError):
        return os.pidfd_open(pid)
    return None


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill it and the rest of its process group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def wait_for_group(process: subprocess.Popen[bytes]) -> None:
    """After `kill`: wait for it, and for those of its process group that became our children.

    As process 1 we inherit orphans, and they would stay zombies.
    """
    process.wait()
    with suppress(ChildProcessError):
        while True:
            os.waitpid(-process.pid, 0)


def reap(seen: Container[str] = ()) -> frozenset[str]:
    """Wait for zombies that we inherited, as process 1 must; returns the zombies that may be such.

    If a zombie is still there at the next call, seconds later, nothing waits for it, unless `start` started it.
    `seen` is what the last call returned.
    """
    with _lock:
        awaited = {str(process.pid) for process in _started if process.returncode is None}
    try:
        zombies = frozenset(zombie for zombie in _zombies() if zombie.split()[0] not in awaited)
    except OSError:  # no descriptors are left, or no /proc is mounted
        return frozenset()
    for zombie in zombies:
        if zombie in seen:
            with suppress(ChildProcessError):
                os.waitpid(int(zombie.split()[0]), os.WNOHANG)
    return zombies


def _zombies() -> Iterator[str]:
    """Our children that have ended, as `pid start-time`: a pid may be used again, but not with the same start time."""
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):  # it has gone meanwhile, or is hidden from us
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                # proc(5): after the name, which may contain anything, are the state, the parent, and as 22nd the start.
                state, parent, *others = file.read().rpartition(")")[2].split()
            if state == "Z" and int(parent) == os.getpid():
                yield f"{entry} {others[17]}"


def fault_of(returncode: int) -> str:
    """Its end, as messages name it."""
    return f"exit {returncode}" if returncode > 0 else f"signal {-returncode}"
