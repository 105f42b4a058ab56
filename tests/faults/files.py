"""What happens to the file system below a running daemon, and names that are planted where bearerd writes."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from faults.judge import Row, tried
from faults.kills import Bench, benches, spread
from faults.place import SOON, Place, Rig, kept, place, recovers, started
from support.process import eventually

_LIFETIME: Final = 40.0
"""Seconds of a token: a fault of a few seconds is over long before its expiry, on a loaded machine, too."""


def _run(*argv: str | Path) -> None:
    subprocess.run(argv, check=True, capture_output=True)


def _fill(path: Path) -> None:
    """Write until there is no room."""
    with (path / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        for size in (1 << 20, 4096, 1):
            with suppress(OSError):
                while filler.write(b"x" * size):
                    pass
        os.fsync(filler.fileno())


def _fill_inodes(path: Path) -> None:
    """Make files until there are no more inodes."""
    (path / "fillers").mkdir()
    with suppress(OSError):
        for number in range(100_000):
            (path / f"fillers/{number}").touch()


def _free(path: Path) -> None:
    (path / "filler").unlink()


def _tmpfs(options: str) -> Callable[[Path, Path], None]:
    return lambda _, path: _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", path)


def _image(kind: str, *options: str) -> Callable[[Path, Path], None]:
    """A file system in a file, on a loop device."""

    def make(image: Path, path: Path) -> None:
        with image.open("wb") as file:
            file.truncate(160 << 20)  # the least that btrfs takes is 109 MB
        _run(f"mkfs.{kind}", *options, image)
        _run("mount", "-o", "loop", image, path)

    return make


def _btrfs_quota(image: Path, path: Path) -> None:
    _image("btrfs", "-q")(image, path)
    _run("btrfs", "subvolume", "create", path / "tokens")
    _run("btrfs", "quota", "enable", path)
    _run("btrfs", "qgroup", "limit", "2M", path / "tokens")


def _over_quota(path: Path) -> None:
    _fill(path / "tokens")
    _run("btrfs", "filesystem", "sync", path)


def _read_only(path: Path) -> None:
    """The directory of the token alone: the kernel refuses where a file is open for writing, as the lock is."""
    _run("mount", "--bind", path / "tokens/dnb", path / "tokens/dnb")
    _run("mount", "-o", "remount,ro,bind", path / "tokens/dnb")


_Do = Callable[[Path], object]
_FILE_SYSTEMS: Final[Mapping[str, tuple[Callable[[Path, Path], None], _Do, _Do, str]]] = {
    "tmpfs is full (ENOSPC)": (_tmpfs("size=256k"), _fill, _free, "no space left"),
    "tmpfs has no inodes (ENOSPC)": (
        _tmpfs("nr_inodes=64"),
        _fill_inodes,
        lambda path: shutil.rmtree(path / "fillers"),
        "no space left",
    ),
    "ext4 is full (ENOSPC)": (_image("ext4", "-q"), _fill, _free, "no space left"),
    "btrfs: the quota is used up (EDQUOT)": (
        _btrfs_quota,
        _over_quota,
        lambda path: _free(path / "tokens"),
        "quota",
    ),
    "ext4: a directory is remounted read-only (EROFS)": (
        _image("ext4", "-q"),
        _read_only,
        lambda path: _run("umount", "--lazy", path / "tokens/dnb"),
        "read-only",
    ),
    "ext4: the token file is immutable (chattr +i)": (
        _image("ext4", "-q"),
        lambda path: _run("chattr", "+i", path / "tokens/dnb/bci"),
        lambda path: _run("chattr", "-i", path / "tokens/dnb/bci"),
        "immutable",
    ),
    "ext4: its directory is immutable (chattr +i)": (
        _image("ext4", "-q"),
        lambda path: _run("chattr", "+i", path / "tokens/dnb"),
        lambda path: _run("chattr", "-i", path / "tokens/dnb"),
        "immutable",
    ),
}
"""By name: how the file system is made, how the fault begins and ends, and a word of the daemon's error."""


def file_systems(rig: Rig, path: Path) -> list[Row]:
    """Each of them under a daemon that needs to write a new token, with readers."""
    del rig
    rows = []
    for number, (fault, (make, begin, end, word)) in enumerate(_FILE_SYSTEMS.items()):
        row = Row(fault)
        with (
            tried(row),
            _mounted(path / str(number), make) as mounted,
            place(mounted, _LIFETIME) as here,
            kept(here, row),
        ):
            grants = here.provider.grants
            begin(mounted)
            here.refresh()
            _tells(here, row, word)
            end(mounted)
            recovers(here, row, grants, SOON)
            _nothing_temporary(here, row)
        rows.append(row)
    return [*rows, _nfs()]


def _nfs() -> Row:
    """Not run: it needs a server, which needs a kernel with NFS. Its errors are injected (`errors`)."""
    client = "an NFS server" if "nfs" in Path("/proc/filesystems").read_text() else "a kernel with an NFS client"
    return Row("NFS", note=f"not run: needs {client}; ESTALE and EIO are injected at each call")


@contextmanager
def _mounted(path: Path, make: Callable[[Path, Path], None]) -> Iterator[Path]:
    """A file system of its own for the place: config and secret are on it, too."""
    path.mkdir()
    make(path.with_suffix(".img"), path)
    try:
        yield path
    finally:
        _run("umount", "--lazy", path)
        path.with_suffix(".img").unlink(missing_ok=True)


def _tells(here: Place, row: Row, word: str) -> None:
    """Wait until the status names the cause."""
    shown: dict[str, dict[str, Any]] = {"status": {}}

    def told() -> bool:
        shown["status"] = here.status()
        return word in str(shown["status"].get("file_errors"))

    try:
        eventually(told, 30.0)
    except AssertionError:
        row.expect(False, f"no {word!r} in the errors: {shown['status'].get('file_errors')}")
    row.output(str(shown["status"]), "the status")


def _nothing_temporary(here: Place, row: Row) -> None:
    for path in here.tokens.rglob(".bearerd-*"):
        row.bad("left", str(path))


# -- mounts that come and go ---------------------------------------------------------------------------


def mounts(rig: Rig, path: Path) -> list[Row]:
    """The output directory is mounted over, and a mount at it is removed and replaced, under the daemon."""
    del rig
    covered = Row("the output directory is mounted over, then uncovered")
    with tried(covered), place(path / "over", _LIFETIME) as here, started(here, covered), _tmpfs_at(here):
        recovers(here, covered, 0)
        grants = here.provider.grants
        _run("umount", "--lazy", here.tokens)  # the daemon has directories open
        recovers(here, covered, grants)
        eventually(here.status)
    removed = Row("the mount of the output directory is removed, then a new one is empty")
    with tried(removed), place(path / "removed", _LIFETIME) as here:
        here.tokens.mkdir()
        with _tmpfs_at(here), started(here, removed):
            _run("umount", "--lazy", here.tokens)
            recovers(here, removed, 0)
            _run("mount", "-t", "tmpfs", "tmpfs", here.tokens)
            recovers(here, removed, 0)
            eventually(here.status)
    return [covered, removed]


@contextmanager
def _tmpfs_at(here: Place) -> Iterator[None]:
    """A mount at the output directory that is removed at the end, unless the block removed it."""
    _run("mount", "-t", "tmpfs", "tmpfs", here.tokens)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", here.tokens], check=False, capture_output=True)


# -- names ---------------------------------------------------------------------------------------------

_NAMES: Final = {
    "the token file": "dnb/bci",
    "the JSON file": "dnb/bci.json",
    "the record": ".bearerd/records/dnb/bci.json",
    "the lock": ".bearerd/lock",
    "the socket": ".bearerd/control.sock",
    "a temporary file": "dnb/.bearerd-{mark}-0123456789abcdef.tmp",
    "the owed hooks": ".bearerd/owed/dnb/bci",
}
_KINDS: Final = ("a symlink", "a dangling symlink", "a directory", "a FIFO", "a device", "a socket", "a hard link")


def planted(rig: Rig, path: Path) -> list[Row]:
    """Each kind at each name, before `once` and before `run`: what it leads to is untouched, and the token is good."""
    row = Row(f"{len(_KINDS)} kinds of planted names at {len(_NAMES)} names")

    def one(bench: Bench, item: tuple[str, str]) -> None:
        (what, kind), here = item, bench.here
        here.clear()
        assert here.once().returncode == 0
        victim = here.path / "victim"
        victim.write_text("untouched")
        victim.chmod(0o604)
        name = here.tokens / _NAMES[what].format(mark=_mark(here))
        _plant(kind, name, victim)
        done = here.once()
        where = f"{kind} as {what}"
        row.ran()
        row.output(done.stderr, where)
        status = victim.stat()
        row.expect(victim.read_text() == "untouched", f"{where}: what it leads to was written")
        row.expect(stat.S_IMODE(status.st_mode) == 0o604, f"{where}: the mode of what it leads to was changed")
        blocked = kind == "a directory" and what in {"the token file", "the JSON file"}
        row.expect(done.returncode == int(blocked), f"{where}: exit {done.returncode}: {done.stderr[-300:]}")
        if blocked:
            row.expect("a directory has this name" in done.stderr, f"{where}: {done.stderr[-300:]}")
            name.rmdir()
            done = here.once()
        row.expect(here.fresh(), f"{where}: the files do not have the newest token: {done.stderr[-300:]}")
        for file in here.files:
            row.expect(not file.is_symlink() and file.is_file(), f"{where}: {file.name} is no regular file")
            row.expect(file.stat().st_nlink == 1, f"{where}: {file.name} has another name")

    items = [(what, kind) for what in _NAMES for kind in _KINDS]
    with benches(rig, path) as workers:
        spread(workers, items[:: 3 if rig.short else 1], one, row)
    return [row]


def _mark(here: Place) -> str:
    """The part of the names of temporary files that is different for each output directory."""
    return sha256(os.fsencode(here.tokens)).hexdigest()[:8]


def _plant(kind: str, name: Path, victim: Path) -> None:
    with suppress(FileNotFoundError):
        shutil.rmtree(name) if name.is_dir() else name.unlink()
    name.parent.mkdir(parents=True, exist_ok=True)
    if kind == "a symlink":
        name.symlink_to(victim)
    elif kind == "a dangling symlink":
        name.symlink_to(victim.with_name("nothing"))
    elif kind == "a directory":
        name.mkdir()
    elif kind == "a FIFO":
        os.mkfifo(name)
    elif kind == "a device":
        os.mknod(name, stat.S_IFCHR | 0o600, os.makedev(1, 3))  # /dev/null
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(name))
    else:
        os.link(victim, name)
