"""Other people's programs: run without a shell, in a clean environment, in a process group of their own."""

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

from bearerd.handoff import waiting

# All that a program needs to find others and its own config; nothing else of the daemon's environment.
_ENVIRONMENT: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")
# Whoever started a program waits for it, be it long after its end: `reap` must not, or how it ended would be lost.
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

    What it has to say, other than on a pipe that it was given, is dropped: it could quote a secret.
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
    """Wait for its end; whether that came within so many seconds."""
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
        os.close(descriptor)
    if done:
        process.wait()
    return done


def descriptor_of(pid: int) -> int | None:
    """What tells a process from a later one with its number; None where there is no such thing."""
    # A Python that was built for an old kernel lacks the call, a sandbox may forbid it, and all may be used up.
    with suppress(AttributeError, OSError):
        return os.pidfd_open(pid)
    return None


def kill(process: subprocess.Popen[bytes]) -> None:
    """End it and all that it left running."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def bury(process: subprocess.Popen[bytes]) -> None:
    """After `kill`: wait for the end of it, and of what became ours of its group, as it does for a container's first.

    Such would stay zombies: nobody else waits for them.
    """
    process.wait()
    with suppress(ChildProcessError):
        while True:
            os.waitpid(-process.pid, 0)


def reap(seen: Container[str] = ()) -> frozenset[str]:
    """Bury what ended in our care though we did not start it, as process 1 must; returns what may be such.

    What is still a zombie at the next look (`seen`: what the last one returned, seconds ago), and was not started by
    `start`, nobody waits for.
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
    """Our children that have ended, as `pid start`: a number may come again, but not at the same time."""
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):  # it has gone meanwhile, or is not to be seen
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                # proc(5): after the name, which may hold anything, come the state, the parent, and, 22nd, the start.
                state, parent, *others = file.read().rpartition(")")[2].split()
            if state == "Z" and int(parent) == os.getpid():
                yield f"{entry} {others[17]}"


def fault_of(returncode: int) -> str:
    """How it ended, in words."""
    return f"exit {returncode}" if returncode > 0 else f"signal {-returncode}"
