"""Looks into the processes of its own user: `spy.py CONFIG RELOADS SECONDS COMMAND…`.

Starts the command in a session of its own, and from its first instant on tries to open each process of this user,
without a pause. Once the file $READY exists, it sends HUP again and again. Prints the result as JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

CONFIG, RELOADS, END = sys.argv[1], int(sys.argv[2]), time.monotonic() + float(sys.argv[3])
READY = os.environ["READY"]
# <sys/inotify.h>, <sys/ptrace.h>, and pidfd_getfd's number, which is the same on each architecture.
IN_OPEN, IN_NONBLOCK, PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH, WALL = 0x20, 0o4000, 0x4206, 0x4207, 17, 0x40000000
PIDFD_GETFD = 438
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]

watch = libc.inotify_init1(IN_NONBLOCK)
assert libc.inotify_add_watch(watch, CONFIG.encode(), IN_OPEN) >= 0
opens = 0
traced: set[int] = set()


def config_read() -> bool:
    """Whether anybody opened the config; counts how often."""
    global opens  # noqa: PLW0603 - a script of one page
    with suppress(BlockingIOError):
        opens += len(os.read(watch, 65536)) // 16
    return opens > 0


def attempts(pid: int) -> list[str]:
    """The parts of a process that could be opened."""
    got = []
    for what, flags in (("environ", os.O_RDONLY), ("maps", os.O_RDONLY), ("mem", os.O_RDWR)):
        with suppress(OSError):
            os.close(os.open(f"/proc/{pid}/{what}", flags))
            got.append(what)
    with suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            got.append("fd")
            with suppress(OSError):
                path = f"/proc/{pid}/fd/{number}"
                if os.readlink(path).startswith("pipe:"):
                    pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
                    got.append("a pipe, to write")
                    os.close(pipe)
    with suppress(OSError):
        handle = os.pidfd_open(pid)
        taken = libc.syscall(PIDFD_GETFD, handle, 0, 0)
        if taken >= 0:
            got.append("pidfd_getfd")
            os.close(taken)
        os.close(handle)
    # Once only: it stops the process for a moment.
    if pid not in traced and libc.ptrace(PTRACE_SEIZE, pid, None, None) == 0:
        traced.add(pid)
        got.append("ptrace")
        libc.ptrace(PTRACE_INTERRUPT, pid, None, None)
        with suppress(OSError):
            os.waitpid(pid, WALL)
        libc.ptrace(PTRACE_DETACH, pid, None, None)
    return got if got and has_memory(pid) else []


def has_memory(pid: int) -> bool:
    """Whether it is not just ending: then the kernel has taken its memory away, and with that what forbids the look.

    Of such a process `maps` and pidfd_getfd can be opened for some microseconds, whatever it is; `maps` is empty.
    """
    with suppress(OSError), open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return not file.read().startswith("0 ")
    return False


def ours(pid: str) -> bool:
    """Whether it belongs to this user, and is not this process."""
    if int(pid) == os.getpid():
        return False
    with suppress(OSError), open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        text = file.read()
        return f"\nUid:\t{os.getuid()}\t" in text and "\nState:\tZ" not in text
    return False


NULL = subprocess.DEVNULL
process = subprocess.Popen(sys.argv[4:], start_new_session=True, stdin=NULL, stdout=NULL, stderr=NULL)
began = time.monotonic()
known: set[str] = set()
alive: set[str] = set()
found: dict[str, set[str]] = {"main before": set(), "main after": set(), "others": set()}
looks = reloads = others = seen = 0
last_open = 0.0
window = 0.0
try:
    while time.monotonic() < END and process.poll() is None and reloads < RELOADS:
        listed = set(filter(str.isdecimal, os.listdir("/proc")))
        new = {pid for pid in listed - known if ours(pid)}
        others += len(new - {str(process.pid)})
        known = listed
        alive = (alive | new) & listed
        for pid in alive:
            read_before = config_read()
            got = attempts(int(pid))
            looks += 1
            if int(pid) != process.pid:
                found["others"].update(got)
            elif got:
                found["main after" if read_before else "main before"].update(got)
                window = time.monotonic() - began
        config_read()
        if opens > seen:
            seen, last_open = opens, time.monotonic()
        # The next one once the last was read, and a moment later, so that its end is seen as well.
        if last_open and os.path.exists(READY) and time.monotonic() > last_open + 0.3:
            os.kill(process.pid, signal.SIGHUP)
            reloads += 1
            last_open = 0.0
finally:
    process.terminate()
    process.wait()
said = {what: sorted(how) for what, how in found.items()}
json.dump({**said, "looks": looks, "reloads": reloads, "count": others, "window": window}, sys.stdout)
