"""What the rigs share: a place of their own to mount in, what they need of Debian, and how they say what they saw."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

INSIDE = "--inside"
_CGROUPS = Path("/sys/fs/cgroup")


def in_a_namespace_of_mounts(program: str, arguments: Sequence[str], *more: str) -> NoReturn:
    """Run a program of tests/ where what it mounts is seen by nobody else, and gone with it; `more` is unshare's."""
    apart = ["unshare", "--mount", "--propagation", "private", *more]
    os.execvp("unshare", [*apart, sys.executable, "-m", program, *arguments])


def one_cgroup_tree() -> None:
    """Where both versions are mounted crun and nspawn give up: leave them the second alone."""
    if not (_CGROUPS / "cgroup.procs").exists():
        subprocess.run(["umount", "--recursive", _CGROUPS], check=True)
        subprocess.run(["mount", "-t", "cgroup2", "cgroup2", _CGROUPS], check=True)


def why_not(programs: Mapping[str, str]) -> str:
    """Why a rig cannot run here; `programs` are what it needs, and the Debian packages that have them."""
    if os.geteuid() != 0:
        return "needs root"
    missing = sorted({package for program, package in programs.items() if shutil.which(program) is None})
    return f"apt-get install --no-install-recommends {' '.join(missing)}" if missing else ""


def say(text: str) -> None:
    """A line of what was seen."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
