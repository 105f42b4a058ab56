"""Descriptors, threads and memory that run out under a running daemon, and clocks that are set, or were suspended."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from attacks.common import other_users_cannot
from bearerd.lifecycle.schedule import CHECK_CLOCKS_EVERY
from faults.judge import Row, tried
from faults.place import SOON, Place, Rig, kept, place, recovers
from support.process import eventually

_LIFETIME: Final = 40.0
_USER: Final = 64734
"""No other process of the machine runs as this user."""
_MEMORY: Final = (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup"))
"""The root of the memory controller: version 1, and version 2."""
_TASKS: Final = (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup"))
"""The root of the controller of tasks: version 1, and version 2."""
_STEPS: Final = {"2 h ahead": "+2h", "2 h back": "-2h", "a day back": "-1d", "to 1970": "@1970-01-01 00:10:00"}


def limits(rig: Rig, path: Path) -> list[Row]:
    """One limit after another."""
    del rig
    rows = [
        _limited(path / "descriptors", "no descriptors are left (RLIMIT_NOFILE)", "nofile", _open_descriptors),
        _silent_callers(path / "callers"),
    ]
    if why := other_users_cannot():
        rows.append(Row("no threads are left (RLIMIT_NPROC)", note=f"not run: {why}"))
    else:
        one = _limited(path / "threads", "no threads are left (RLIMIT_NPROC)", "nproc", lambda _: 1, _USER)
        rows.append(one)
    rows.append(_tasks_max(path / "tasks"))
    rows.append(_limited(path / "memory", "no memory can be mapped (RLIMIT_AS)", "as", _mapped))
    return rows


def _limited(path: Path, fault: str, limit: str, least: Callable[[int], int], user: int | None = None) -> Row:
    """Set a limit to what the daemon uses, request a token, wait a while, and lift the limit."""
    row = Row(fault)
    with tried(row), place(path, _LIFETIME) as here, ExitStack() as stack:
        how: dict[str, Any] = {}
        if user is not None:
            here.tokens.mkdir()
            for file in (here.path, here.config, here.secret, here.tokens):
                os.chown(file, user, user)
            how = {"user": user, "group": user, "extra_groups": []}
        # A thread that could not start for lack of memory may hang, and then the kernel ends the process after 4 s.
        codes = (0, -signal.SIGALRM) if limit == "as" else (0,)
        daemon = stack.enter_context(kept(here, row, codes=codes, **how))
        grants, pid = here.provider.grants, daemon.process.pid
        _set(pid, limit, str(least(pid)), user)
        with suppress(Exception):  # it may not be able to answer
            here.refresh()
        threading.Event().wait(5.0)  # its checks and retries run meanwhile
        _set(pid, limit, "", user)
        row.expect(daemon.process.poll() is None, f"the daemon ended: {daemon.process.poll()}")
        recovers(here, row, grants)
        try:
            eventually(lambda: here.status().get("state") == "valid")
        except AssertionError:
            row.expect(False, f"the status is {here.status() or 'not answered'}")
    return row


def _tasks_max(path: Path) -> Row:
    """The limit of a control group, as systemd's TasksMax and the pids limit of containers set it."""
    row = Row("no threads and processes are left (pids.max)")
    root = next((root for root in _TASKS if (root / "cgroup.procs").exists()), None)
    own = (root or path) / f"bearerd-faults-tasks-{os.getpid()}"
    if root is not None:
        own.mkdir()
    try:
        if not (own / "pids.max").exists():
            row.note = "not run: no controller of tasks here"
            return row
        with tried(row), place(path, _LIFETIME) as here, kept(here, row) as daemon:
            grants = here.provider.grants
            pid = daemon.process.pid
            for one in (pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())):
                (own / "cgroup.procs").write_text(str(one))
            (own / "pids.max").write_text((own / "pids.current").read_text())
            here.config.write_text(here.config.read_text().replace("{format: json}", "{format: json, mode: '0644'}"))
            daemon.wait_for("can be started")  # a thread to load the config in, or a process to read it
            with suppress(Exception):  # it may not be able to answer
                here.refresh()
            (own / "pids.max").write_text("max")
            recovers(here, row, grants)
            daemon.wait_for("config reloaded")
            row.expect(daemon.process.poll() is None, f"the daemon ended: {daemon.process.poll()}")
    finally:
        if own.is_dir():
            eventually(lambda: not (own / "cgroup.procs").read_text())
            own.rmdir()
    return row


def _set(pid: int, limit: str, soft: str, user: int | None) -> None:
    """Set the soft limit of a process, or lift it, as its user: root may not be allowed to, in a container."""
    value = f"{soft}:" if soft else _hard(pid, limit, user)
    subprocess.run(["prlimit", "--pid", str(pid), f"--{limit}={value}"], check=True, user=user, group=user)


def _hard(pid: int, limit: str, user: int | None) -> str:
    shown = ["prlimit", "--pid", str(pid), f"--{limit}", "--output", "HARD", "--noheadings"]
    done = subprocess.run(shown, check=True, capture_output=True, text=True, user=user, group=user)
    return done.stdout.strip()


def _open_descriptors(pid: int) -> int:
    """The lowest number that is free: no file can be opened below it."""
    used = set(map(int, os.listdir(f"/proc/{pid}/fd")))
    return min(set(range(len(used) + 1)) - used)


def _mapped(pid: int) -> int:
    """The bytes of address space in use."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


def _silent_callers(path: Path) -> Row:
    """32 descriptors in all, and a hundred callers that connect to the socket and send nothing."""
    row = Row("32 descriptors, and 100 silent callers at the socket")
    with (
        tried(row),
        place(path, lifetime=8.0) as here,
        kept(here, row, ["prlimit", "--nofile=32"]),
        ExitStack() as stack,
    ):
        grants = here.provider.grants
        for _ in range(100):
            caller = stack.enter_context(socket.socket(socket.AF_UNIX))
            caller.setblocking(False)
            try:
                caller.connect(str(here.socket))
            except BlockingIOError:
                break
        eventually(lambda: here.provider.grants >= grants + 3)
        row.ran()
    return row


# -- killed by the kernel for its memory --------------------------------------------------------------


def out_of_memory(rig: Rig, path: Path) -> list[Row]:
    """A cgroup that is too small for a start: the kernel kills the daemon somewhere; the next start finds all well."""
    del rig
    row = Row("killed for its memory (cgroup), at starts")
    root = next((root for root in _MEMORY if (root / "cgroup.procs").exists()), None)
    if root is None:
        row.note = "not run: no cgroups here"
        return [row]
    own = root / f"bearerd-faults-memory-{os.getpid()}"
    own.mkdir()
    try:
        limit = "memory.limit_in_bytes" if (own / "memory.limit_in_bytes").exists() else "memory.max"
        if not (own / limit).exists():
            row.note = "not run: no memory controller here"
            return [row]
        with place(path / "p") as here:
            known = here.baseline()
            for megabytes in range(8, 40, 4):
                (own / limit).write_text(str(megabytes << 20))
                done = here.once("sh", "-c", f'echo $$ >{own}/cgroup.procs && exec "$@"', "sh")
                row.output(done.stderr, f"{megabytes} MB")
                here.look(row, f"{megabytes} MB", must_be=True)
                here.mended(row, f"{megabytes} MB", known)
    finally:
        own.rmdir()
    return [row]


# -- clocks --------------------------------------------------------------------------------------------


def clocks(rig: Rig, path: Path) -> list[Row]:
    """A wall clock that is set while the daemon runs. A token of 24 s is renewed at 12 s, whatever a clock says."""
    rows = []
    with ExitStack() as stack:
        begun: list[tuple[Place, Row, Path, str]] = []
        grants: list[int] = []
        for number, (name, step) in enumerate(_STEPS.items()):
            row = Row(f"the clock is set {name}")
            here = stack.enter_context(place(path / str(number), lifetime=24.0))
            shown = here.path / "clock"
            shown.write_text("+0\n")
            env = {
                "LD_PRELOAD": rig.faketime,
                "FAKETIME_TIMESTAMP_FILE": str(shown),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "TZ": "UTC",  # in which libfaketime reads an absolute time
            }
            stack.enter_context(kept(here, row, env=env))
            begun.append((here, row, shown, step))
            rows.append(row)
        for here, row, shown, step in begun:
            row.ran()
            grants.append(here.provider.grants)
            shown.with_suffix(".new").write_text(f"{step}\n")
            shown.with_suffix(".new").rename(shown)
        for (here, row, _, step), before in zip(begun, grants, strict=True):
            # Two renewals: the first is due by the old clock, the second by the new one.
            eventually(lambda here=here, before=before: here.provider.grants >= before + 2)
            eventually(here.fresh)
            wall = json.loads(here.json.read_text())["expires_at"]
            row.expect((wall[:4] == "1970") == (step[0] == "@"), f"expires_at is {wall}")
    return rows


def suspended(rig: Rig, path: Path) -> list[Row]:
    """A suspend that ends when a refresh is due, when a token is about to expire, and long after it has."""
    rows = []
    for number, (name, seconds) in enumerate({"50 min": 3000.0, "an hour": 3590.0, "a day": 86400.0}.items()):
        row = Row(f"a suspend of {name}; a token of an hour")
        with tried(row), place(path / str(number)) as here:
            asleep = here.path / "asleep"
            asleep.write_bytes(struct.pack("<d", 0.0))
            env = {"LD_PRELOAD": str(rig.sleeper), "BEARERD_SUSPENDED": str(asleep)}
            with kept(here, row, env=env):
                # The end of the start still wakes the daemon. Later only its own look at the clocks notices a suspend.
                threading.Event().wait(CHECK_CLOCKS_EVERY + 2.0)
                grants = here.provider.grants
                _sleep(asleep, seconds)
                recovers(here, row, grants, SOON)
        rows.append(row)
    return rows


def _sleep(asleep: Path, seconds: float) -> None:
    with asleep.open("r+b", buffering=0) as file:
        file.write(struct.pack("<d", seconds))
