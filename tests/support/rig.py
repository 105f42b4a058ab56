"""Shared by the rigs: a mount namespace, the Debian packages that they need, and their output."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

INSIDE = "--inside"
_CGROUPS = Path("/sys/fs/cgroup")


def in_a_namespace_of_mounts(program: str, arguments: Sequence[str], *more: str) -> NoReturn:
    """Run a program of tests/ in a mount namespace of its own; `more` are options of unshare."""
    namespace = ["unshare", "--mount", "--propagation", "private", *more]
    os.execvp("unshare", [*namespace, sys.executable, "-m", program, *arguments])


@contextmanager
def in_memory(name: str) -> Iterator[Path]:
    """A directory in memory, where nothing waits for a disk; in the rig's own namespace of mounts.

    Not below /dev/shm: containers limit its size, and no program in it can be run there.
    """
    with tempfile.TemporaryDirectory(prefix=f"bearerd-{name}-") as path:
        # Others than root go through it.
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", path], check=True)
        try:
            yield Path(path)
        finally:
            subprocess.run(["umount", "--recursive", "--lazy", path], check=True)


def one_cgroup_tree() -> None:
    """Leave only cgroup version 2 mounted: crun and nspawn fail if both versions are."""
    if not (_CGROUPS / "cgroup.procs").exists():
        subprocess.run(["umount", "--recursive", _CGROUPS], check=True)
        subprocess.run(["mount", "-t", "cgroup2", "cgroup2", _CGROUPS], check=True)


def why_not(programs: Mapping[str, str]) -> str:
    """Why a rig cannot run here, or an empty text; `programs` are the required ones with their Debian packages."""
    if os.geteuid() != 0:
        return "needs root"
    missing = sorted({package for program, package in programs.items() if shutil.which(program) is None})
    return f"apt-get install --no-install-recommends {' '.join(missing)}" if missing else ""


def say(text: str) -> None:
    """Print a line of results."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
