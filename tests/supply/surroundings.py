"""Two checkouts of one commit, in surroundings that differ in all that a build could pick up by mistake."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from supply.lock import ROOT

EPOCH: Final = "1790000000"
"""When the commit was made: in 2026, so neither the time of the run nor a default of a tool."""
_WITHIN = 1200.0  # seconds for one build; it takes a minute or two
_NOBODY = 65534
_SOMEBODY = 12345  # a user that need not exist; root builds in the checkout of another user
_AHEAD = "+26h"  # another day in each time zone, and certificates of the network are still valid
_IGNORED = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", ".hypothesis", "node_modules")
_ENTER = 'umask "$1" && cd "$2" && shift 2 && exec "$@"'


@dataclass(frozen=True)
class Surroundings:
    """Where, as which user and with which settings something is built; paths are inside `root`."""

    root: Path
    directory: str
    umask: str
    user: int
    environment: dict[str, str]
    clock: tuple[str, ...] = ()
    """faketime, before the user's program only: it cannot follow chroot. Its library alone would not do: a subshell
    that ends removes what the library shares between processes."""

    @property
    def checkout(self) -> Path:
        """The checkout, as seen from outside of `root`."""
        return self.root / f"{self.directory}/src".lstrip("/")

    @property
    def out(self) -> Path:
        """The directory for artefacts, as seen from outside of `root`."""
        return self.root / f"{self.directory}/out".lstrip("/")

    def run(self, *argv: str | Path, more: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program in the checkout, whatever its exit status."""
        enter: list[str | Path] = [
            "chroot",
            f"--userspec={self.user}:{self.user}",
            "--groups=",
            self.root,
            "sh",
            "-c",
            _ENTER,
            "sh",
        ]
        inherited = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
        return subprocess.run(
            [*enter, self.umask, f"{self.directory}/src", *self.clock, *argv],
            env=inherited | self.environment | dict(more or {}), timeout=_WITHIN, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def must(self, *argv: str | Path, more: Mapping[str, str] | None = None) -> None:
        """Run a program that has to succeed."""
        done = self.run(*argv, more=more)
        assert done.returncode == 0, f"{argv} in {self.directory}: exit {done.returncode}\n{done.stdout[-3000:]}"


@contextmanager
def pair(root: Path, directory: Path) -> Iterator[tuple[Surroundings, Surroundings]]:
    """Both, below a directory in `root`, while the block runs. faketime is installed in `root`.

    They differ in directory, file system, order of files in directories, user, umask, locale, time zone, seed of
    hashes, number of processors used, and time.
    """
    first, second = (f"/{(directory / name).relative_to(root)}" for name in ("a", "another/with-a-longer-name"))
    place = root / second[1:]
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", place], check=True)
    try:
        _commit(directory / "origin")
        yield (
            _prepared(directory / "origin", _SOMEBODY, Surroundings(
                root, first, "0022", 0,
                {"LC_ALL": "C", "TZ": "America/Adak", "PYTHONHASHSEED": "1", "DPKG_DEB_THREADS_MAX": "1"},
            )),
            _prepared(directory / "origin", _NOBODY, Surroundings(
                root, second, "0077", _NOBODY,
                {"LC_ALL": "tr_TR.UTF-8", "TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "4711",
                 "DPKG_DEB_THREADS_MAX": "2"},
                ("faketime", "-f", _AHEAD),
            )),
        )  # fmt: skip
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def _prepared(origin: Path, owner: int, one: Surroundings) -> Surroundings:
    """With its checkout, which belongs to `owner`, and its directories."""
    before = os.umask(int(one.umask, 8))
    copy(origin, one.checkout, backwards=owner == one.user)
    os.umask(before)
    one.checkout.parent.chmod(0o755)  # the rig reads what is there
    for path in (one.checkout, *one.checkout.rglob("*")):
        os.chown(path, owner, owner, follow_symlinks=False)
    for name in ("out", "tmp", "home"):
        (one.checkout.parent / name).mkdir()
        os.chown(one.checkout.parent / name, one.user, one.user)
    settings = {"HOME": f"{one.directory}/home", "TMPDIR": f"{one.directory}/tmp"}
    return replace(one, environment=one.environment | settings)


def copy(source: Path, target: Path, *, backwards: bool = False) -> None:
    """Copy a tree with the umask of this process. The order counts, because a tmpfs lists the newest file first."""
    target.mkdir(parents=True)
    for path in sorted(source.rglob("*"), reverse=backwards):
        to = target / path.relative_to(source)
        to.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            to.symlink_to(path.readlink())
        elif path.is_dir():
            to.mkdir(exist_ok=True)
        else:
            mode = 0o777 if path.stat().st_mode & 0o100 else 0o666
            with open(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(path.read_bytes())


def _commit(directory: Path) -> None:
    """The files of this checkout, as one commit."""
    shutil.copytree(ROOT, directory, symlinks=True, ignore=_IGNORED)
    who = {"NAME": "nobody", "EMAIL": "nobody@bearerd.invalid", "DATE": f"{EPOCH} +0000"}
    dated = {f"GIT_{role}_{name}": value for role in ("AUTHOR", "COMMITTER") for name, value in who.items()}
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message=all"]):
        subprocess.run(["git", *words], cwd=directory, env=os.environ | dated, check=True)
