"""System calls that fail: every errno that Linux documents for a call, at every place where bearerd makes it."""

from __future__ import annotations

import errno
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Final

from faults.injector import Call, check_injector
from faults.judge import Row
from faults.kills import Bench, benches, spread
from faults.place import Place, Rig, started
from support.process import Daemon

_PATHS: Final = "EACCES EIO ELOOP ENAMETOOLONG ENOENT ENOMEM ENOTDIR EPERM EROFS ESTALE"
"""What every call on a path can return; ESTALE and EIO are those of network file systems."""
ERRORS: Final = {
    "openat": f"{_PATHS} EAGAIN EBUSY EDQUOT EEXIST EFBIG EINTR EINVAL EISDIR EMFILE ENFILE ENODEV ENOSPC ENXIO "
    "EOPNOTSUPP EOVERFLOW ETXTBSY",
    "mkdir": f"{_PATHS} EDQUOT EEXIST EINVAL EMLINK ENOSPC",
    "mkdirat": f"{_PATHS} EDQUOT EEXIST EINVAL EMLINK ENOSPC",
    "rename": f"{_PATHS} EBUSY EDQUOT EEXIST EINVAL EISDIR EMLINK ENOSPC ENOTEMPTY EXDEV",
    "renameat": f"{_PATHS} EBUSY EDQUOT EEXIST EINVAL EISDIR EMLINK ENOSPC ENOTEMPTY EXDEV",
    "unlink": f"{_PATHS} EBUSY EINVAL EISDIR",
    "unlinkat": f"{_PATHS} EBUSY EINVAL EISDIR",
    "newfstatat": f"{_PATHS} EBADF EINVAL EOVERFLOW",
    "faccessat2": f"{_PATHS} EINVAL ETXTBSY",
    "fchmod": "EBADF EIO ENOMEM EPERM EROFS",
    "fchown": "EACCES EBADF EDQUOT EIO ENOMEM EPERM EROFS",
    "ftruncate": "EBADF EFBIG EINTR EINVAL EIO EPERM ETXTBSY",
    "write": "EAGAIN EBADF EDESTADDRREQ EDQUOT EFBIG EINTR EINVAL EIO ENOSPC EPERM EPIPE ESTALE",
    "pwrite64": "EAGAIN EBADF EDQUOT EFBIG EINTR EINVAL EIO ENOSPC EPERM ESPIPE",
    "fsync": "EBADF EDQUOT EINTR EINVAL EIO ENOSPC EROFS",
    "close": "EDQUOT EINTR EIO ENOSPC",
    "read": "EAGAIN EBADF EINTR EINVAL EIO EISDIR ESTALE",
    "pread64": "EAGAIN EBADF EINTR EINVAL EIO EISDIR ESPIPE",
    "lseek": "EBADF EINVAL ENXIO EOVERFLOW ESPIPE",
    "getdents64": "EBADF EINVAL EIO ENOENT ENOTDIR ESTALE",
    "flock": "EBADF EINTR EINVAL ENOLCK EWOULDBLOCK",
    "fcntl": "EACCES EAGAIN EBADF EDEADLK EINTR EINVAL EMFILE ENOLCK EPERM",
    "ioctl": "EBADF EINVAL ENOTTY",
}
"""By call: what its manual page lists, without EFAULT, and without EBADF for close, which only a bug can cause."""
_CONFIG: Final = "/config.yaml"
_SHORT_WRITES: Final = ("write", "pwrite64")
_LASTING: Final = [
    "openat",
    "mkdirat",
    "fchmod",
    "write",
    "fsync",
    "renameat",
    "newfstatat",
    "getdents64",
    "flock",
    "read",
]
"""Calls that also fail every time: then a run ends with an error. Without EINTR, after which Python repeats a call."""
_MOST: Final = 50
"""Errors of the short form at one call each, and a fifth of it that last."""


@dataclass(frozen=True)
class Fault:
    """A call, by its number among those of its name and part of the config, and what is done to it."""

    name: str
    number: int
    action: str
    part: str
    lasting: bool = False

    def options(self) -> list[str]:
        """The options of the injector."""
        follow = ["-f"] if self.part == _CONFIG else []  # another process reads it
        return ["-c", self.name, "-p", self.part, *(["-r"] if self.lasting else []), *follow]

    def code(self) -> str | int:
        """The action of the injector."""
        return int(getattr(errno, self.action)) if hasattr(errno, self.action) else self.action


def errors(rig: Rig, path: Path) -> list[Row]:
    """A row for the files that bearerd writes, one for what it reads, and one for errors that last."""
    rows = {
        "written": Row("an error at each call on the output directory"),
        "read": Row("an error at each call on secret and config"),
        "lasting": Row("a call that fails every time, until the next run"),
    }
    codes: dict[str, set[int]] = {name: set() for name in rows}

    def one(bench: Bench, item: tuple[str, Fault]) -> None:
        kind, fault = item
        row, here = rows[kind], bench.here
        if not here.fresh():
            here.once()
        grants = here.provider.grants
        argv = bench.injector.argv(fault.code(), *fault.options(), number=fault.number)
        done = here.once(*argv, timeout="3s" if fault.lasting else "20s")
        check_injector(done.returncode, done.stderr)
        for hit in bench.injector.calls()[:1]:
            where = f"{fault.action} at {hit}"
            codes[kind].add(done.returncode)
            row.output(done.stderr + done.stdout, where)
            here.look(row, where, must_be=True)
            if done.returncode == 0:
                row.expect(here.fresh(), f"{where}: exit 0 without the newest token in the files: {done.stderr[-300:]}")
            else:
                row.expect(done.returncode in {1, 78}, f"{where}: exit {done.returncode}: {done.stderr[-300:]}")
                row.expect(_says_why(done.stderr, here), f"{where}: no error in: {done.stderr[-300:]}")
            if done.returncode == 0 and not fault.name.startswith("unlink"):
                row.ran()
                here.nothing_left(row, where, bench.known)
            else:
                here.mended(row, where, bench.known)
            row.expect(here.provider.grants <= grants + 2, f"{where}: {here.provider.grants - grants} grants")

    with benches(rig, path) as workers:
        items = _items(workers[0], short=rig.short)
        for kind, row in rows.items():
            spread(workers, [item for item in items if item[0] == kind], one, row, read=True)
    rows["lasting"].expect(1 in codes["lasting"], f"no error was reported: exit codes {codes['lasting']}")
    return list(rows.values())


def reloads(rig: Rig, path: Path) -> list[Row]:
    """An error at each call on the config while a daemon reloads it."""
    row = Row("an error at each call of a reload")

    def one(bench: Bench, fault: Fault) -> None:
        here, injector = bench.here, bench.injector
        with started(here, row, injector.argv(fault.code(), "-s", *fault.options(), number=fault.number)) as running:
            loaded = _reloaded(running)
            hits = injector.calls()
            check_injector(running.process.poll() or 0, loaded)
            if not hits:  # a run may have some calls fewer than the first one
                return
            where = f"{fault.action} at {hits[0]}"
            row.ran()
            if "config reloaded" not in loaded:
                row.expect("stays in use" in loaded and str(here.config) in loaded, f"{where}: {loaded}")
                if "retrying" not in loaded:
                    running.process.send_signal(signal.SIGHUP)
                running.wait_for("config reloaded")
            row.expect(here.config_error() is None, f"{where}: {here.config_error()}")
            row.expect(here.status().get("state") == "valid", f"{where}: {here.status()}")
            here.look(row, where, must_be=True)

    with benches(rig, path) as workers:
        here, injector = workers[0].here, workers[0].injector
        with started(here, row, injector.argv("list", "-s", "-f", "-p", _CONFIG)) as running:
            _reloaded(running)
        faults = _at(injector.calls(), _CONFIG, short=rig.short)
        spread(workers, faults, one, row, read=True)
    return [row]


def _reloaded(running: Daemon) -> str:
    """Let a daemon reload its config, and count the calls; returns the line about it."""
    running.process.send_signal(signal.SIGUSR1)
    running.process.send_signal(signal.SIGHUP)
    line = running.wait_for(" config ")  # reloaded, or "stays in use"
    running.process.send_signal(signal.SIGUSR1)
    return line


def _says_why(text: str, here: Place) -> bool:
    """Whether an error is reported that names a token or a path."""
    errors = [line for line in text.splitlines() if line.startswith("bearerd: ") or " ERROR " in line]
    return any(str(here.path) in line or "name=dnb/bci" in line for line in errors)


def _at(calls: Sequence[Call], part: str, *, short: bool) -> list[Fault]:
    """Each errno at the first call of each site, and one at each other call; in the short form one at each call."""
    faults: list[Fault] = []
    turns = {name: cycle(text.split()) for name, text in ERRORS.items()}
    seen: dict[str, int] = {}
    sites: set[tuple[str, str]] = set()
    for call in calls:
        if call.name not in ERRORS:
            continue
        number = seen[call.name] = seen.get(call.name, 0) + 1
        names = [next(turns[call.name])]
        if call.site() not in sites and not short:
            names = ERRORS[call.name].split()
        sites.add(call.site())
        if call.name in _SHORT_WRITES:
            names.append("short")
        faults += [Fault(call.name, number, name, part) for name in names]
    return faults


def _items(bench: Bench, *, short: bool) -> list[tuple[str, Fault]]:
    """The faults: each errno at the first call of each kind, and one errno at each other call."""
    here, injector = bench.here, bench.injector
    single: list[tuple[str, Fault]] = []
    # A part is a text that the paths contain in each of the places.
    for kind, part in (("written", "/tokens"), ("read", "/secret"), ("read", _CONFIG)):
        follow = ["-f"] if part == _CONFIG else []
        done = here.once(*injector.argv("list", "-p", part, "-c", ",".join(ERRORS), *follow))
        assert done.returncode == 0, done.stderr
        single += [(kind, fault) for fault in _at(injector.calls(), part, short=short)]
    lasting = [
        ("lasting", Fault(name, 1, error, "/tokens", lasting=True))
        for name in _LASTING
        for error in ERRORS[name].split()
        if error != "EINTR"
    ]
    if short:
        single, lasting = single[:: max(1, len(single) // _MOST)], lasting[:: max(1, 5 * len(lasting) // _MOST)]
    return [*single, *lasting]
