"""How the process protects itself at its start: standard descriptors, umask, core dumps, ptrace, environment."""

from __future__ import annotations

import os
import sys

from bearerd.descriptors import release

TYPE_CHECKING = False  # type checkers take it as true; `health` imports this module, and typing costs it 3 ms
if TYPE_CHECKING:
    from typing import Final

# <linux/prctl.h>
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
# <malloc.h>
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
# Bytes; the default of glibc, which would raise it to up to 32 MiB, and then keep freed large blocks in its heap.
_LARGE: Final = 128 * 1024
# Others can write nothing that this process creates. It is not stricter, because under systemd's RestrictSUIDSGID= a
# directory below a setgid one gets its mode from mkdir only. Secret files are created with an explicit mode.
_UMASK: Final = 0o022


def open_standard_descriptors() -> None:
    """Open /dev/null on each of the descriptors 0 to 2 that is closed.

    Otherwise the next socket or file would get that number, and every log line would go into it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest free number, which is this one
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - it stays open


def write_stderr(text: str) -> None:
    """Write a line to stderr. If that fails, only the exit code reports the error."""
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except OSError:
        # The rest of the buffer would fail again at exit, and change the exit code.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def harden() -> str | None:
    """Set the umask, and hide this process's memory from others; returns why that failed, or None.

    An undumpable process writes no core file, and only root can read its /proc/PID/{environ,fd,mem} (proc(5)), which
    matters if several programs run as one user. Processes that it forks are undumpable too, until they exec.
    """
    if os.umask(_UMASK) & _UMASK != _UMASK:
        _tighten_caches()
    import ctypes  # noqa: PLC0415 - `health` does not need it
    import resource  # noqa: PLC0415

    # For the programs that we start. A core that is piped to a program ignores this limit (core(5)).
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        return f"a crash could write secrets to a core file: {os.strerror(ctypes.get_errno())}"
    return None


def keep_heap_small() -> None:
    """Let all threads allocate from one heap of glibc, and large blocks be returned as soon as they are free.

    Separate heaps keep threads from waiting for each other, but in Python threads take turns anyway.
    """
    import ctypes  # noqa: PLC0415

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # else another C library
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _LARGE)


def _tighten_caches() -> None:
    """Remove write permission for others from the bytecode directories that Python created before the umask was set."""
    cached = {getattr(module, "__cached__", None) for module in list(sys.modules.values())}
    for directory in {os.path.dirname(path) for path in cached if path}:
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue  # it does not exist, or is not ours
        try:
            found = os.fstat(descriptor)
            if found.st_uid == os.geteuid() and found.st_mode & _UMASK:
                os.fchmod(descriptor, found.st_mode & 0o7777 & ~_UMASK)
        except OSError:
            continue  # on a read-only file system, where Python created none
        finally:
            release(descriptor)


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; exits now if the parent has ended already."""
    import ctypes  # noqa: PLC0415
    import signal  # noqa: PLC0415

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def forget_environment(keep: tuple[str, ...]) -> dict[str, str]:
    """Remove all variables but these, also from /proc/PID/environ; returns the kept ones."""
    import ctypes  # noqa: PLC0415

    kept = {name: os.environ[name] for name in keep if name in os.environ}
    os.environ.clear()
    try:
        with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
            # proc(5): after the name, which may contain anything; env_start and env_end are the 50th and 51st field.
            start, end = map(int, file.read().rpartition(")")[2].split()[47:49])
    except OSError:  # no /proc is mounted, so nobody can read it there either
        start = end = 0
    ctypes.memset(start, 0, end - start)
    os.environ.update(kept)
    return kept
